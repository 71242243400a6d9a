"""Renders the chart for each case beside this file, and holds what comes out to the case and to Kubernetes' schemas.

A case says `values` (and `files`, values files of the chart), and then either `refuse`, a part of the error, or `expect`, a list of
objects: each must be there by kind (and name), and have what is written; a list whose elements have names is searched by name, any
other list has the same length; `null` means that the field is absent, and `absent: true` that the whole object is.

With RENDERED set, what is rendered is kept in that folder. With ISTIO_CHART set, what Istio's gateway chart makes of the same values is compared wherever both charts have the field.
"""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

OLDEST, NEWEST = "1.29", "1.37"
# Kinds of others, whose schemas are not Kubernetes'.
FOREIGN = {"PodMonitor"}


def render(chart, case, values):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        command = ["helm", "template", case.get("release", "istio-ingressgateway"), str(chart)]
        command += ["--namespace", case.get("namespace", "istio-system")]
        for name in case.get("files", []):
            command += ["--values", str(pathlib.Path(__file__).parents[1] / name)]
        command += ["--values", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def objects(text):
    return [found for found in yaml.safe_load_all(text) if found]


def schema_faults(found):
    if found["kind"] in FOREIGN:
        return
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(found, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{found['kind']} {found['metadata']['name']}: Kubernetes {version}: {error}"


def lacks(wanted, found, path=""):
    """Yields what of `wanted` is not in `found`."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            yield f"{path}: wanted an object, found {found!r}"
            return
        for key, value in wanted.items():
            where = f"{path}.{key}"
            if value is None:
                if key in found:
                    yield f"{where}: wanted none, found {found[key]!r}"
            elif key not in found:
                yield f"{where}: is not there"
            else:
                yield from lacks(value, found[key], where)
    elif isinstance(wanted, list) and wanted and all(isinstance(one, dict) and "name" in one for one in wanted):
        named = {one.get("name"): one for one in found or []}
        for one in wanted:
            if one["name"] not in named:
                yield f"{path}[{one['name']}]: is not there"
            else:
                yield from lacks(one, named[one["name"]], f"{path}[{one['name']}]")
    elif isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            yield f"{path}: wanted {wanted!r}, found {found!r}"
            return
        for index, (one, other) in enumerate(zip(wanted, found)):
            yield from lacks(one, other, f"{path}[{index}]")
    elif wanted != found:
        yield f"{path}: wanted {wanted!r}, found {found!r}"


def expectation_faults(expect, rendered):
    wanted = copy.deepcopy(expect)
    kind, name, absent = wanted.pop("kind"), wanted.pop("name", None), wanted.pop("absent", False)
    found = [one for one in rendered if one["kind"] == kind and name in (None, one["metadata"]["name"])]
    if absent:
        if found:
            yield f"{kind} {name or ''}: is there"
    elif len(found) != 1:
        yield f"{kind} {name or ''}: found {len(found)} of them"
    else:
        yield from (f"{kind}{fault}" for fault in lacks(wanted, found[0]))


# What an installation with Istio's chart and one with ours have in common, so that one can stand in place of the other.


def shared_parts(rendered):
    parts = {}
    for one in rendered:
        kind, name, spec = one["kind"], one["metadata"]["name"], one.get("spec", {})
        notes = one["metadata"].get("annotations") or {}
        if kind in ("Deployment", "DaemonSet"):
            parts[kind, name] = workload_part(spec) | {"annotations": notes}
        elif kind == "NetworkPolicy":
            ports = {(port["port"], port["protocol"]) for rule in spec["ingress"] for port in rule["ports"]}
            parts[kind, name] = {"ports": ports, "pods": spec["podSelector"], "egress": spec["egress"]}
        elif kind in ("Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"):
            parts[kind, name] = {"spec": spec, "annotations": notes}
        elif kind == "ServiceAccount":
            parts[kind, name] = {}
    return parts


def workload_part(spec):
    spec = copy.deepcopy(spec)
    template = spec.pop("template")
    pod = template["spec"]
    strategy = spec.pop("strategy", spec.pop("updateStrategy", None))
    notes = {key: value for key, value in (template["metadata"].get("annotations") or {}).items() if "inject" not in key}
    proxy = next(one for one in pod["containers"] if one["name"] == "istio-proxy")
    ours = {"limen-cache", "workload-certificate"}
    own_labels = ("app.kubernetes.io/", "helm.sh/", "sidecar.istio.io/inject")
    guard = {key: value for key, value in (proxy.get("securityContext") or {}).items() if not key.startswith(("runAs", "secc"))}
    return {
        "spec": spec,
        "strategy": strategy,
        "pod annotations": notes,
        "pod labels": {key: value for key, value in template["metadata"]["labels"].items() if not key.startswith(own_labels)},
        "pod": {
            key: value
            for key, value in pod.items()
            if key not in ("containers", "volumes", "topologySpreadConstraints")
        },
        "spread": [one for one in pod.get("topologySpreadConstraints", []) if one.get("whenUnsatisfiable") != "ScheduleAnyway"],
        "containers beside": [one for one in pod["containers"] if one["name"] != "istio-proxy"],
        "volumes": [one for one in pod.get("volumes") or [] if one["name"] not in ours],
        "mounts": [one for one in proxy.get("volumeMounts") or [] if one["name"] not in ours],
        "resources": proxy.get("resources") or {},
        "guard": guard,
        "lifecycle": proxy.get("lifecycle"),
        "pull": proxy.get("imagePullPolicy"),
    }


def set_variables(rendered):
    for one in rendered:
        if one["kind"] in ("Deployment", "DaemonSet"):
            pod = one["spec"]["template"]["spec"]
            # Beside a workload it is an init container that stays.
            every = [*pod["containers"], *(pod.get("initContainers") or [])]
            proxy = next(each for each in every if each["name"] == "istio-proxy")
            return {each["name"]: each for each in proxy.get("env") or []}
    return {}


def istio_faults(istio, case, values, rendered):
    for name in case.get("files", []):
        given = yaml.safe_load((pathlib.Path(__file__).parents[1] / name).read_text())
        values = {**given, **values}
    values = {key: value for key, value in values.items() if key != "limen"}
    code, text, error = render(istio, {**case, "files": []}, values)
    if code != 0:
        yield f"Istio's chart refuses what ours takes: {error.strip()}"
        return
    theirs = objects(text)
    ours, wanted = shared_parts(rendered), shared_parts(theirs)
    differs = set(case.get("differs", []))
    for key, part in wanted.items():
        if key not in ours:
            yield f"as Istio's: no {' '.join(key)}"
            continue
        for field, value in part.items():
            mine = ours[key].get(field)
            if field not in differs and (mine or None) != (value or None):
                yield f"as Istio's: {' '.join(key)} {field}: Istio's has {value!r}, ours {mine!r}"
    for name, variable in set_variables(theirs).items():
        if set_variables(rendered).get(name) != variable:
            yield f"as Istio's: variable {name}"


# What is named here must be there: metrics in the dashboards, variables and flags in the manifests.


def sources(root, pattern):
    return {found for path in (root / "gateway/src").rglob("*.rs") for found in re.findall(pattern, path.read_text())}


def dashboard_faults(path, root):
    metrics = set(re.findall(r'"((?:istio|limen)_\w+)"', (root / "gateway/src/telemetry/names.rs").read_text()))
    for panel in json.loads(path.read_text())["panels"]:
        for target in panel.get("targets", []):
            for name in re.findall(r"\b(?:istio|limen)_\w+", target["expr"]):
                if name not in metrics and re.sub("_(bucket|sum|count)$", "", name) not in metrics:
                    yield f"panel {panel['title']}: there is no metric {name}"


def label_faults(rendered):
    """The process must know each label that its pod has, since Gateways select it by them."""
    for one in rendered:
        if one["kind"] in ("Deployment", "DaemonSet"):
            told = set((set_variables([one])["LIMEN_LABELS"].get("value") or "").split(","))
            for key, value in one["spec"]["template"]["metadata"]["labels"].items():
                if f"{key}={value}" not in told:
                    yield f"LIMEN_LABELS does not say {key}={value}"


def kinds(root):
    """Kinds that are read, with their group and versions, out of the one table that the process has of them."""
    text = (root / "config-model/src/meta.rs").read_text()
    group_of, versions_of = (text.split(f"pub fn {name}(self)")[1].split("\n    }\n")[0] for name in ("group", "versions"))
    groups = {
        kind: group
        for arm, group in re.findall(r'((?:\|?\s*Kind::\w+\s*)+)=>\s*\{?\s*"([\w.]*)"', group_of)
        for kind in re.findall(r"Kind::(\w+)", arm)
    }
    versions = {group: re.findall(r'"(\w+)"', listed) for group, listed in re.findall(r'"([\w.]+)" => &\[(.*?)\]', versions_of)}
    names = re.findall(r'Kind::(\w+) => "\1"', text)
    assert "VirtualService" in names and set(names) == set(groups) and "networking.istio.io" in versions, "the table of kinds has moved"
    return {name: (groups[name], versions.get(groups[name], ["v1"])) for name in names}


def plural_of(kind):
    lower = kind.lower()
    return f"{lower[:-1]}ies" if re.search("[^aeiou]y$", lower) else f"{lower}s"


def right_faults(rendered, root):
    """Each kind that is read must be granted: in all namespaces, or where the pod is. Of Istio's the status is written."""
    granted = {
        f"{group}/{resource}"
        for one in rendered
        if one["kind"] in ("Role", "ClusterRole")
        for rule in one["rules"]
        if {"list", "watch"} <= set(rule["verbs"])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    # Endpoints are read from folders only: EndpointSlices say the same, and more.
    for name, (group, _) in kinds(root).items():
        if name != "Endpoints" and f"{group}/{plural_of(name)}" not in granted:
            yield f"nobody may list and watch {plural_of(name)} of {group or 'the core'}"
    patched = {
        f"{group}/{resource}"
        for one in rendered
        if one["kind"] == "ClusterRole"
        for rule in one["rules"]
        if "patch" in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    for one in granted:
        if ".istio.io/" in one and f"{one}/status" not in patched:
            yield f"nobody may write the status of {one}"


def definition_faults(rendered, root):
    """Each of Istio's kinds that is read is defined, in each version that is read, with a status of its own."""
    defined = {one["metadata"]["name"]: one["spec"] for one in rendered if one["kind"] == "CustomResourceDefinition"}
    for kind, (group, versions) in kinds(root).items():
        if not group.endswith(".istio.io"):
            continue
        name = f"{plural_of(kind)}.{group}"
        spec = defined.pop(name, None)
        if spec is None:
            yield f"{name} is not defined"
            continue
        names = spec["names"]
        if (spec["group"], names["kind"], f"{names['plural']}.{group}") != (group, kind, name):
            yield f"{name} is not what it is called"
        served = {one["name"] for one in spec["versions"] if one["served"] and "status" in one["subresources"]}
        if served != set(versions):
            yield f"{name}: served with a status as {sorted(served)}, read as {versions}"
    yield from (f"{name} is defined, and not read" for name in defined)


def drain_faults(rendered):
    """A drain is over before the kubelet kills, and accepts no longer than it lasts. (Of a second nothing can be left.)"""
    for one in rendered:
        if one["kind"] in ("Deployment", "DaemonSet"):
            grace = one["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
            told = set_variables([one])
            drain, accept = (
                int(re.fullmatch(r"(\d+)s", told[name]["value"])[1]) for name in ("LIMEN_DRAIN_TIME", "LIMEN_MIN_DRAIN_TIME")
            )
            if not (accept <= drain and (drain < grace or grace <= 1)):
                yield f"terminationGracePeriodSeconds {grace}, a drain of {drain} s that accepts for {accept} s"


# Keys of Istio's gateway chart, which a values file may have.
ISTIO_KEYS = """
name revision replicaCount kind rbac.enabled serviceAccount.create serviceAccount.annotations serviceAccount.name podAnnotations
securityContext containerSecurityContext service.type service.clusterIP service.selectorLabels service.ports service.annotations
service.loadBalancerIP service.loadBalancerSourceRanges service.externalTrafficPolicy service.internalTrafficPolicy
service.healthCheckNodePort service.externalIPs service.ipFamilyPolicy service.ipFamilies service.allocateLoadBalancerNodePorts
service.loadBalancerClass resources.requests resources.limits autoscaling.enabled autoscaling.minReplicas autoscaling.maxReplicas
autoscaling.targetCPUUtilizationPercentage autoscaling.targetMemoryUtilizationPercentage autoscaling.autoscaleBehavior env envVarFrom
strategy minReadySeconds readinessProbe labels annotations nodeSelector tolerations topologySpreadConstraints affinity networkGateway
networkGatewayPorts imagePullPolicy imagePullSecrets podDisruptionBudget dnsPolicy dnsConfig terminationGracePeriodSeconds volumes
volumeMounts initContainers additionalContainers priorityClassName lifecycle global.networkPolicy.enabled
""".split()
# These change what is rendered by being there, so they have no default.
WITHOUT_DEFAULT = {"service.allocateLoadBalancerNodePorts", "service.loadBalancerClass"}


def value_faults(chart):
    """Each key of Istio's chart is in the schema, has a default, and is read by a template; and each default is in the schema."""
    schema = json.loads((chart / "values.schema.json").read_text())
    defaults = yaml.safe_load((chart / "values.yaml").read_text())["_internal_defaults_do_not_set"]
    templates = "".join(path.read_text() for path in (chart / "templates").iterdir())

    def described(path):
        here = schema
        for name in path.split("."):
            here = schema["definitions"][here["$ref"].split("/")[-1]] if "$ref" in here else here
            if name not in here.get("properties", {}):
                # An object of which nothing is said admits any key; at the top and below `limen` each is named.
                return here is not schema and "object" in here.get("type", "") and here.get("additionalProperties") is not False
            here = here["properties"][name]
        return True

    def paths(value, above=""):
        for name, below in value.items():
            path = f"{above}{name}"
            yield path
            if isinstance(below, dict) and not above.startswith("labels."):
                yield from paths(below, f"{path}.")

    known = set(paths(defaults))
    for path in [*ISTIO_KEYS, *sorted(known)]:
        if not described(path):
            yield f"values.schema.json does not know {path}"
    for path in ISTIO_KEYS:
        if path not in known | WITHOUT_DEFAULT:
            yield f"values.yaml does not have {path}"
        # What is nested is read by its last names: templates take parts of values into variables, or loop over them.
        parts = path.split(".")
        if not re.search(rf"\.{parts[-1]}\b|\"{parts[-1]}\"|\.{parts[0]}\b(?!\.)", templates):
            yield f"no template reads {path}"


def readme_faults(root):
    """Who checks files of a cluster is told to fetch each kind that is read; ConfigMap `istio` is fetched by itself, Secrets are left there."""
    line = re.search(r"^kubectl get (gateways\S+) \\\n  -A -o yaml", (root / "deploy/README.md").read_text(), re.MULTILINE)
    named = {name.split(".")[0] for name in line[1].split(",")} if line else set()
    for kind in kinds(root):
        if kind not in ("Endpoints", "Secret", "ConfigMap") and plural_of(kind) not in named:
            yield f"`kubectl get` of the migration does not name {plural_of(kind)}"


def variable_faults(rendered, root):
    known = sources(root, r'env = "(LIMEN_\w+)"')
    for name in set_variables(rendered):
        if name.startswith("LIMEN_") and name not in known:
            yield f"there is no variable {name}"


def main():
    chart, manifests = pathlib.Path(sys.argv[1]), sys.argv[2:]
    root = chart.resolve().parents[1]
    istio = os.environ.get("ISTIO_CHART")
    passed = failed = 0

    def report(name, faults):
        nonlocal passed, failed
        faults = list(faults)
        passed, failed = passed + (not faults), failed + bool(faults)
        for fault in faults:
            print(f"deploy: {name}: {fault}", file=sys.stderr)

    for path in manifests:
        rendered = objects(pathlib.Path(path).read_text())
        faults = [fault for one in rendered for fault in schema_faults(one)]
        kinds_there = [one["kind"] for one in rendered]
        if "Deployment" in kinds_there:
            faults += variable_faults(rendered, root)
        # A Deployment by itself is somebody else's, with a sidecar: its rights are granted elsewhere.
        if "Deployment" in kinds_there and kinds_there != ["Deployment"]:
            faults += right_faults(rendered, root)
        if any(one["kind"] == "CustomResourceDefinition" for one in rendered):
            faults += definition_faults(rendered, root)
        report(pathlib.Path(path).name, [*faults, *label_faults(rendered), *drain_faults(rendered)])
    report("values", value_faults(chart))
    report("README.md", readme_faults(root))
    for path in sorted((root / "deploy/dashboards").glob("*.json")):
        report(path.name, dashboard_faults(path, root))
    cases = sorted((pathlib.Path(__file__).parent / "cases").glob("*.yaml"))
    assert cases, "no cases"
    for path in cases:
        case = yaml.safe_load(path.read_text())
        values = case.get("values") or {}
        code, text, error = render(chart, case, values)
        if "refuse" in case:
            report(path.name, [] if code != 0 and case["refuse"] in error else [f"was not refused so: {error.strip() or 'rendered'}"])
            continue
        if code != 0:
            report(path.name, [error.strip()])
            continue
        rendered = objects(text)
        if kept := os.environ.get("RENDERED"):
            (pathlib.Path(kept) / path.name).write_text(text)
        faults = [*(fault for one in rendered for fault in schema_faults(one)), *label_faults(rendered), *drain_faults(rendered)]
        faults += [fault for expect in case.get("expect", []) for fault in expectation_faults(expect, rendered)]
        if istio and case.get("istio", True):
            faults += istio_faults(istio, case, values, rendered)
        report(path.name, faults)
    print(f"deploy: {passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
