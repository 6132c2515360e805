# One set of flags everywhere, so that the build cache serves every target.
export CGO_ENABLED = 0
export GOFLAGS = -trimpath
export VARCO_REQUIRE_ROOT := $(if $(filter 0,$(shell id -u)),1)
GO_TEST = go test -p 4 -timeout 20m $(if $(VARCO_REQUIRE_ROOT),-count=1)
COMPILER := $(shell command -v gcc || command -v cc || command -v clang)
RACE = $(if $(COMPILER),CGO_ENABLED=1 CC=$(COMPILER) $(GO_TEST) -race,$(warning no C compiler: no race detector)$(GO_TEST))
# What links Kubernetes is too large for staticcheck and the race detector, which work on all that a package imports.
LAB_LIST = go list -f '{{.ImportPath}} {{.Deps}}'
PICK = sed '/ k8s.io.kubernetes/$(1)d; s/ .*//; s/[.]test$$//'
LAB_TESTS = $$($(LAB_LIST) -test ./... | grep '^[^ ]*[.]test ' | $(PICK))
K8S = $(shell sed -n 's|.*k8s.io/kubernetes v||p' lab/go.mod)
LAB_LINK = -s -w $(foreach v,gitVersion=v$(K8S) gitMajor=1 gitMinor=$(word 2,$(subst ., ,$(K8S))),-X k8s.io/component-base/version.$(v))
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile
build: ## build bin/varco and bin/varco-lab, both static
	go build -o bin/varco ./cmd/varco
	cd lab && go build -ldflags '$(LAB_LINK)' -o ../bin/varco-lab .
demo: build ## run the lab with Services under load; ARGS=--once ends it (needs root)
	bin/varco-lab demo --varco bin/varco $(ARGS)
lint: ## gofmt, vet and staticcheck over all modules; builds for macOS and Windows
	@files=$$(gofmt -l .); test -z "$$files" || { echo "run gofmt -w on:" $$files; exit 1; }
	go build -o bin/staticcheck honnef.co/go/tools/cmd/staticcheck && for os in darwin windows; do GOOS=$$os go build -o /dev/null ./cmd/varco || exit 1; done
	go vet ./... && bin/staticcheck ./... && cd bench && go vet ./... && ../bin/staticcheck ./...
	cd lab && go vet ./... && ../bin/staticcheck $$($(LAB_LIST) ./... | $(PICK))

test: build lint ## lint and run every test; as root the packet tests and the lab too
	$(RACE) ./... && $(GO_TEST) ./internal/backend/health && cd bench && $(RACE) ./...
	cd lab && $(RACE) $(LAB_TESTS) && $(GO_TEST) $(call LAB_TESTS,!)
bench-kube-proxy: build ## measure kube-proxy beside upstream's into docs/bench; ARGS="--quick --out=" looks only (needs root)
bench-kubectl-proxy: build ## measure kubectl-proxy beside kubectl proxy, in the same way; needs no root
bench-apiserver-proxy: build ## measure apiserver-proxy beside kube-apiserver's own proxy, in the same way (needs root)
bench-apiserver-lb: build ## measure apiserver-lb beside HAProxy and nginx, in the same way (needs root)
bench-kube-proxy bench-kubectl-proxy bench-apiserver-proxy bench-apiserver-lb:
	cd bench && go build -o ../bin/varco-bench . && go build -ldflags '$(LAB_LINK)' -o ../bin/ $(addprefix k8s.io/kubernetes/cmd/,kube-proxy kubectl)
	bin/varco-bench $(@:bench-%=%) --out docs/bench $(ARGS)
clean: ## remove what build made
	rm -rf bin
.PHONY: help build demo lint test bench-kube-proxy bench-kubectl-proxy bench-apiserver-proxy bench-apiserver-lb clean
