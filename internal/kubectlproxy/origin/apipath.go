package origin

// APIPath is the escaped path of the API that the origin stands for, whatever way its requests take: what rules about
// resources are held against.
func (o Origin) APIPath() string {
	resource, name := "services", o.Name
	if o.Pod {
		resource = "pods"
	}
	if o.Port != "" {
		name += ":" + o.Port
	}
	return "/api/v1/namespaces/" + o.Namespace + "/" + resource + "/" + name + "/proxy/"
}
