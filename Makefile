# The commands of this repository. `make run` and `make test` are all a newcomer needs.

CARGO ?= cargo
# What the tests use of the gateway beyond its defaults.
TEST_FLAGS := --workspace --locked --features gateway/testing

.DEFAULT_GOAL := help
.PHONY: help deps run build pgo test torture fuzz sbom auditable smoke fmt lint docs bench bench-micro chart ci

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install the system packages that the build needs, where missing
	@.ci/deps

.PHONY: test-deps
test-deps:
	@.ci/deps tests

run: deps ## build, and run the Bookinfo demo on http://localhost:8080/productpage
	@benches/load/release.sh
	$(CARGO) build --release --locked -p bookinfo --bin bookinfo
	@exec deploy/samples/bookinfo/run.sh

build: deps ## build limen for release, laid out by what it does under load (benches/load/limen.profdata)
	@benches/load/release.sh

pgo: deps ## count anew what limen does under load, and build by that; takes two builds
	benches/load/pgo.sh

test: test-deps ## every test, every benchmark once, and the small ones held to what they took before
	$(CARGO) test $(TEST_FLAGS)
	$(CARGO) test $(TEST_FLAGS) --bench '*'
	CARGO="$(CARGO)" TEST_FLAGS="$(TEST_FLAGS)" python3 benches/baselines.py
	python3 -m unittest discover -q -s benches -p test_baselines.py
	python3 -m unittest discover -q -s benches/macro
	python3 -m unittest discover -q -s gateway/tests/torture
	python3 gateway/tests/torture check

torture: test-deps ## every fault and attack we know of, a line each and a total; SCOPE=quick ONLY=F1,S9 WRITE=1
	@SCOPE="$(SCOPE)" ONLY="$(ONLY)" WRITE="$(WRITE)" python3 gateway/tests/torture

fuzz: deps ## look for inputs that break a law of the parsers; SECONDS=20 for each target
	config-model/fuzz/run $(or $(SECONDS),20)
	gateway/fuzz/run $(or $(SECONDS),20)

sbom: ## the bill of materials of limen, in target/limen.cdx.json (CycloneDX)
	@.ci/sbom

auditable: deps ## build limen for release with the list of its crates inside, for cargo audit bin
	@command -v cargo-auditable >/dev/null || $(CARGO) install cargo-auditable --version 0.7.7 --locked
	@AUDITABLE=on benches/load/release.sh

smoke: ## ask a running demo for its pages
	deploy/samples/bookinfo/smoke.sh

fmt: ## format the code
	$(CARGO) fmt --all

lint: deps ## what CI checks without running: format, clippy, walls between the crates
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings
	.ci/walls

docs: deps ## the API documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps --locked

bench: deps ## limen and its peers on the same work, into benches/results; SCENARIO=h1,tls PEERS=envoy ROUNDS=5 SECONDS=3
	python3 benches/macro --scenario "$(SCENARIO)" --peers "$(PEERS)" --rounds $(or $(ROUNDS),5) --seconds $(or $(SECONDS),3)

bench-micro: deps ## the micro-benchmarks: lookup, compile, swap, balancing, checking
	$(CARGO) bench -p benches --locked

chart: ## hold the Helm chart, the plain manifests and the Dockerfile to their checks
	deploy/check

ci: ## all that CI does
	.ci/run
