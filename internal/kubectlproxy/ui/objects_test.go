package ui_test

import (
	"fmt"
	"strings"
)

// port makes a port of a Service from "http:80", "dns:53/UDP" or ":80"; an appProtocol follows a space.
func port(text string) object {
	text, app, _ := strings.Cut(text, " ")
	name, rest, _ := strings.Cut(text, ":")
	number, protocol, ok := strings.Cut(rest, "/")
	if !ok {
		protocol = "TCP"
	}
	p := object{"port": atoi(number), "protocol": protocol}
	if name != "" {
		p["name"] = name
	}
	if app != "" {
		p["appProtocol"] = app
	}
	return p
}

func atoi(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

func namespace(name string) object { return object{"metadata": object{"name": name}} }

// service makes a Service from "namespace/name", its type and its ports as port reads them.
func service(key, kind, clusterIP string, ports ...string) object {
	ns, name, _ := strings.Cut(key, "/")
	spec := object{"type": kind}
	if clusterIP != "" {
		spec["clusterIP"], spec["clusterIPs"] = clusterIP, []string{clusterIP}
	}
	list := make([]object, len(ports))
	for i, p := range ports {
		list[i] = port(p)
	}
	spec["ports"] = list
	return object{"metadata": object{"namespace": ns, "name": name}, "spec": spec}
}

// balanced gives a Service addresses outside.
func balanced(s object, ingress ...string) object {
	list := make([]object, len(ingress))
	for i, ip := range ingress {
		list[i] = object{"ip": ip}
	}
	s["status"] = object{"loadBalancer": object{"ingress": list}}
	return s
}

// slice makes an EndpointSlice of a Service: total endpoints for all of the Service's ports, of which ready are ready.
func slice(of object, ready, total int) object {
	meta := of["metadata"].(object)
	ports := of["spec"].(object)["ports"].([]object)
	endpoints := make([]object, total)
	for i := range endpoints {
		endpoints[i] = object{
			"addresses":  []string{fmt.Sprintf("10.244.1.%d", i+1)},
			"conditions": object{"ready": i < ready},
			"targetRef":  object{"kind": "Pod", "uid": fmt.Sprintf("%s-%d", meta["name"], i)},
		}
	}
	return object{
		"metadata": object{
			"namespace": meta["namespace"], "name": meta["name"].(string) + "-x7k2p",
			"labels": object{"kubernetes.io/service-name": meta["name"]},
		},
		"addressType": "IPv4", "ports": ports, "endpoints": endpoints,
	}
}

// add puts a Service with so many endpoints into the cluster.
func (c *cluster) add(s object, ready, total int) {
	c.set("services", s)
	if s["spec"].(object)["type"] != "ExternalName" {
		c.set("endpointslices", slice(s, ready, total))
	}
}

// shop fills the cluster with what a small real one has.
func (c *cluster) shop() {
	for _, ns := range []string{"bookshop", "data", "default", "kube-system", "monitoring", "staging"} {
		c.set("namespaces", namespace(ns))
	}
	c.add(service("default/kubernetes", "ClusterIP", "10.96.0.1", "https:443"), 3, 3)
	c.add(service("kube-system/kube-dns", "ClusterIP", "10.96.0.10", "dns:53/UDP", "dns-tcp:53", "metrics:9153"), 2, 2)
	c.add(service("kube-system/metrics-server", "ClusterIP", "10.103.91.7", "https:443"), 1, 1)
	c.add(service("bookshop/web", "ClusterIP", "10.110.4.20", "http:80"), 3, 3)
	c.add(balanced(service("bookshop/gateway", "LoadBalancer", "10.99.250.8", "http:80", "https:443", "quic:443/UDP"),
		"203.0.113.17"), 2, 2)
	c.add(service("bookshop/checkout", "ClusterIP", "10.105.33.164", "grpc:9090 kubernetes.io/h2c", "metrics:9102"), 2, 3)
	c.add(service("bookshop/search", "ClusterIP", "10.108.17.92", "http:8080"), 0, 2)
	c.add(service("data/postgres", "ClusterIP", "None", "postgres:5432"), 3, 3)
	c.add(service("data/redis", "ClusterIP", "10.101.6.45", "redis:6379"), 1, 1)
	c.add(service("monitoring/grafana", "NodePort", "10.97.144.3", "http:3000"), 1, 1)
	c.add(service("monitoring/prometheus", "ClusterIP", "10.102.55.81", "web:9090", "reloader:8080"), 2, 2)
	mail := service("bookshop/mail", "ExternalName", "")
	mail["spec"].(object)["externalName"] = "smtp.example.com"
	c.add(mail, 0, 0)
}

// numbered is the name of one of many Services, over ten namespaces.
func numbered(i int) string { return fmt.Sprintf("team-%d/svc-%04d", i%10, i) }
