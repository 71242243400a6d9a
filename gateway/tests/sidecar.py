#!/usr/bin/env python3
"""`limen run --role sidecar` in a network namespace of its own, with the rules of deploy/sidecar/redirect, beside a workload, and a world
of several hosts beside that: what the workload calls, and what calls it.

LIMEN_BIN names the binary. Ends with 0 when all is as it should be, with 77 when this machine gives no namespaces, and else with 1 and
a line for each thing that is not.
"""
import os, shutil, socket, ssl, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
REDIRECT = os.path.join(HERE, "../../deploy/sidecar/redirect")
PATIENCE = 30
SKIPPED = 77
# Whose connections the rules let out; the group alone, so that the proxy may read what its user wrote.
GROUP = 1337
WORLD = "limen-test-world"

POD, PEER = "10.77.0.2", "10.77.0.1"
V1, V2, DB, OTHER = "10.77.0.11", "10.77.0.12", "10.77.0.21", "10.77.0.20"
# Addresses of services, which no host has.
REVIEWS, BASE, CART = "10.96.0.10", "10.96.0.20", "10.96.0.30"


def service(name, address, port, selector=""):
    return f"""---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: {address}, {selector} ports: [{{name: {port[0]}, port: {port[1]}}}]}}
"""


def endpoint(name, address, port):
    return f"""---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: {port[0]}, port: {port[1]}, protocol: TCP}}]
endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]
"""


HTTP, WEB, TCP = ("http", 9080), ("http", 8080), ("tcp", 3306)
MESH = (
    service("reviews", REVIEWS, HTTP) + endpoint("reviews", V1, HTTP)
    + service("reviews-v2", "10.96.0.11", HTTP) + endpoint("reviews-v2", V2, HTTP)
    + service("base", BASE, TCP) + endpoint("base", DB, TCP)
    + service("cart", CART, WEB, "selector: {app: cart},") + endpoint("cart", POD, WEB)
    + """---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {x-version: {exact: v2}}}]
    route: [{destination: {host: reviews-v2}}]
  - route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: default}
spec:
  host: cart
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: who-comes, namespace: default}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/denied], ports: ['8080', '9080']}}]}]
"""
)


def reach(mode):
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: default, namespace: default}}
spec:
  outboundTrafficPolicy: {{mode: {mode}}}
  egress:
  - port: {{number: 3128, protocol: HTTP_PROXY, name: proxy}}
    bind: 127.0.0.1
    captureMode: NONE
    hosts: ['./*']
  - hosts: ['./*']
"""


STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
"""

failed = []


def sh(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"sidecar.py: {command}: {done.stderr}")
    return done.stdout


def expect(what, good, got):
    if not good:
        failed.append(f"{what}: {got!r}")


def eventually(what, ask):
    end, got = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        got = ask()
        if got:
            return got
        threading.Event().wait(0.05)
    failed.append(f"gave up waiting for {what}: {got!r}")
    return None


# ---- servers --------------------------------------------------------------------------------------------------------


def serve(address, port, each):
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(64)

    def loop():
        while True:
            peer, client = listener.accept()
            threading.Thread(target=each, args=(peer, client), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def http(name):
    """Says its name, whom it sees, and the head that came."""

    def each(peer, client):
        with peer:
            while head := head_of(peer):
                body = f"{name} from {client[0]}\n{head}".encode()
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                if "connection: close" in head.lower():
                    return

    return each


def banner(name):
    """Speaks first, and then says back what it hears."""

    def each(peer, client):
        with peer:
            peer.sendall(f"{name} from {client[0]}\n".encode())
            while got := peer.recv(4096):
                peer.sendall(got)

    return each


def head_of(peer):
    head = b""
    while b"\r\n\r\n" not in head:
        got = peer.recv(4096)
        if not got:
            return None
        head += got
    return head.decode()


def world():
    for address, port, each in (
        (V1, 9080, http("v1")), (V2, 9080, http("v2")), (OTHER, 80, http("other")),
        (OTHER, 9080, http("other")), (DB, 3306, banner("base")), (OTHER, 7000, banner("other")),
    ):
        serve(address, port, each)
    print("up", flush=True)
    threading.Event().wait()


# ---- clients --------------------------------------------------------------------------------------------------------


def connected(address, port):
    peer = socket.create_connection((address, port), timeout=10)
    peer.settimeout(10)
    return peer


def get(peer, host, target="/", more=""):
    """Status and body, or why there is none."""
    try:
        with peer:
            peer.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n".encode())
            got = b""
            while part := peer.recv(65536):
                got += part
    except OSError as error:
        return str(error)
    head, _, body = got.decode(errors="replace").partition("\r\n\r\n")
    return f"{head.split(' ')[1]} {body}" if head.startswith("HTTP/1.") else f"nothing: {got!r}"


def asked(address, port, host, target="/", more=""):
    try:
        return get(connected(address, port), host, target, more)
    except OSError as error:
        return str(error)


def heard(address, port, say=b""):
    """What a server says by itself, and back to what is said then."""
    try:
        with connected(address, port) as peer:
            got = peer.recv(4096)
            if say and got:
                peer.sendall(say)
                got += peer.recv(4096)
            return got.decode(errors="replace")
    except OSError as error:
        return str(error)


def spoken(address, port, say):
    """What a server says to who spoke first."""
    try:
        with connected(address, port) as peer:
            peer.sendall(say)
            peer.shutdown(socket.SHUT_WR)
            got = b""
            while part := peer.recv(4096):
                got += part
            return got.decode(errors="replace")
    except OSError as error:
        return str(error)


def outside(call):
    """Does this in the world, where a call is one of these functions with its arguments."""
    done = subprocess.run(["ip", "netns", "exec", WORLD, sys.executable, __file__, "--call", repr(call)],
                          capture_output=True, text=True)
    return done.stdout + done.stderr


# ---- the proxies ----------------------------------------------------------------------------------------------------


class Limen:
    def __init__(self, folder, name, certificates, labels, address, inside=()):
        self.logs, self.inside = f"{folder}/{name}", list(inside)
        command = [*inside, os.environ["LIMEN_BIN"], "run", "--role", "sidecar", "--config", f"{folder}/config",
                   "--namespace", "default", "--labels", labels, "--workload-addresses", address,
                   "--workload-certificates", certificates, "--access-log-file", f"{self.logs}.access",
                   "--threads", "2", "--min-drain-time", "0s", "--drain-time", "1s"]
        self.child = subprocess.Popen(command, group=GROUP, extra_groups=[],
                                      stdout=subprocess.DEVNULL, stderr=open(f"{self.logs}.log", "w"))

    def alive(self):
        return self.child.poll() is None

    def said(self):
        with open(f"{self.logs}.log") as log:
            return log.read()

    def access(self):
        try:
            with open(f"{self.logs}.access") as log:
                return log.read()
        except FileNotFoundError:
            return ""


def metrics():
    return asked("127.0.0.1", 15090, "localhost", "/stats/prometheus")


def refused_count():
    lines = [line for line in metrics().splitlines() if line.startswith("limen_connections_refused_total")]
    return float(lines[0].split()[-1]) if lines else 0.0


def certificates(folder):
    """One authority, and a folder of the workload's files for each account."""
    sh(f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /O=mesh "
       f"-keyout {folder}/ca.key -out {folder}/ca.pem")
    for account, domain in (("cart", "cluster.local"), ("shop", "cluster.local"), ("alien", "other.example")):
        own = f"{folder}/{account}"
        os.mkdir(own)
        with open(f"{own}/names", "w") as names:
            names.write(f"subjectAltName=critical,URI:spiffe://{domain}/ns/default/sa/{account}\n")
        sh(f"openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj / -keyout {own}/key.pem -out {own}/csr")
        sh(f"openssl x509 -req -in {own}/csr -CA {folder}/ca.pem -CAkey {folder}/ca.key -CAcreateserial -days 9 "
           f"-extfile {own}/names -out {own}/cert-chain.pem")
        shutil.copy(f"{folder}/ca.pem", f"{own}/root-cert.pem")


def write(folder, name, text):
    with open(f"{folder}/.{name}.new", "w") as file:
        file.write(text)
    os.rename(f"{folder}/.{name}.new", f"{folder}/config/{name}")


def network():
    """The pod is the namespace this runs in; the world is beside it."""
    world = f"ip netns exec {WORLD}"
    sh(f"mount -t tmpfs none /run && mkdir -p /run/netns && ip link set lo up && ip netns add {WORLD}")
    sh(f"ip link add pod type veth peer name world netns {WORLD}")
    sh(f"ip address add {POD}/24 dev pod && ip link set pod up")
    sh(f"{world} ip link set lo up && {world} ip link set world up")
    for address in (PEER, V1, V2, DB, OTHER):
        sh(f"{world} ip address add {address}/24 dev world")
    sh(f"ip route add default via {PEER} && {world} ip route add default via {POD}")


def start_world():
    beside = subprocess.Popen(["ip", "netns", "exec", WORLD, sys.executable, __file__, "--world"], group=GROUP,
                              extra_groups=[], stdout=subprocess.PIPE, text=True)
    beside.stdout.readline()
    return beside


def run(folder):
    network()
    os.mkdir(f"{folder}/config")
    certificates(folder)
    write(folder, "mesh.yaml", MESH)
    write(folder, "sidecar.yaml", reach("ALLOW_ANY"))
    serve("0.0.0.0", 8080, http("cart"))
    serve("0.0.0.0", 7001, banner("cart"))
    beside = start_world()
    there = ["ip", "netns", "exec", WORLD]
    rules = [REDIRECT, "-u", "", "-g", str(GROUP)]
    cart = shop = None
    try:
        cart = Limen(folder, "cart", f"{folder}/cart", "app=cart", POD)
        ready = lambda: asked("127.0.0.1", 15021, "localhost", "/healthz/ready").startswith("200")
        eventually("the sidecar to be ready, or to end", lambda: not cart.alive() or ready())
        if failed or not cart.alive():
            return failed.append(f"the sidecar did not start: {cart.child.poll()}")
        subprocess.run(rules, check=True)
        outbound()
        loops()
        inbound()
        # Another sidecar, beside who calls. What is not to be redirected there are the servers of the world.
        shop = Limen(folder, "shop", f"{folder}/shop", "app=shop", PEER, there)
        eventually("the other sidecar", lambda: not shop.alive() or "200" in outside(
            ("asked", "127.0.0.1", 15021, "localhost", "/healthz/ready")))
        subprocess.run([*there, *rules, "-b", ""], check=True)
        mutual(folder)
        registry_only(folder)
        told(cart)
        expect("both are alive", cart.alive() and shop.alive(), (cart.alive(), shop.alive()))
    finally:
        for limen in filter(None, (cart, shop)):
            limen.child.kill()
            if failed:
                print(f"--- {limen.logs}\n{limen.said()}{limen.access()}", file=sys.stderr)
        beside.kill()


# ---- the cases ------------------------------------------------------------------------------------------------------


def outbound():
    got = asked(REVIEWS, 9080, "reviews")
    expect("HTTP to a service's address", got.startswith("200 v1 "), got)
    got = asked(REVIEWS, 9080, "reviews", more="x-version: v2\r\n")
    expect("HTTP by a VirtualService of the mesh", got.startswith("200 v2 "), got)
    got = asked(REVIEWS, 9080, "reviews", "/denied")
    expect("HTTP on its way out, which no policy is about", got.startswith("200 v1 "), got)
    got = heard(BASE, 3306, b"select")
    expect("TCP to a service's address, whose server speaks first", got.startswith("base ") and got.endswith("select"), got)
    got = asked(OTHER, 80, "other.example")
    expect("HTTP to who is no service", got.startswith("200 other "), got)
    got = asked(OTHER, 9080, "other.example")
    expect("HTTP to who is no service, on a service's port", got.startswith("200 other "), got)
    got = heard(OTHER, 7000, b"ping")
    expect("TCP to who is no service, whose server speaks first", got.startswith("other ") and got.endswith("ping"), got)
    got = asked("127.0.0.1", 3128, "reviews:9080", "http://reviews:9080/x")
    expect("by HTTP_PROXY", got.startswith("200 v1 "), got)


def loops():
    before = refused_count()
    got = asked("127.0.0.1", 15001, "a")
    expect("to the outbound port itself", not got.startswith("2"), got)
    got = outside(("asked", POD, 15006, "a"))
    expect("to the inbound port itself", not got.startswith("2"), got)
    expect("both are counted", refused_count() > before, (before, refused_count()))


def inbound():
    got = outside(("asked", POD, 8080, "cart"))
    expect("in the clear", got.startswith("200 cart from 127.0.0.6"), got)
    got = outside(("asked", POD, 8080, "cart", "/denied"))
    expect("what a policy denies, by the port that the client meant", got.startswith("403"), got)
    got = outside(("spoken", POD, 7001, b"ping\n"))
    expect("a port that no service has", got.startswith("cart from 127.0.0.6") and "ping" in got, got)


def mutual(folder):
    ask = ("asked", CART, 8080, "cart")
    got = outside(ask)
    expect("from sidecar to sidecar", got.startswith("200 cart from 127.0.0.6"), got)
    expect("with the caller's name", "spiffe://cluster.local/ns/default/sa/shop" in got, got)
    write(folder, "strict.yaml", STRICT)
    plain = lambda: tls_or_plain(folder, None)
    eventually("STRICT to refuse plain text", lambda: not plain().startswith("200"))
    got = outside(ask)
    expect("from sidecar to sidecar under STRICT", got.startswith("200 cart "), got)
    got = tls_or_plain(folder, "shop")
    expect("by hand with a certificate", got.startswith("200 cart "), got)
    got = tls_or_plain(folder, "nobody")
    expect("by hand without one", not got.startswith("200"), got)


def tls_or_plain(folder, account, port=8080, more=""):
    """A call to the pod from the world past the sidecar there, which lets out whoever is of its group."""
    done = subprocess.run(["ip", "netns", "exec", WORLD, sys.executable, __file__, "--call",
                           repr(("by_hand", folder, account, port, more))], capture_output=True, text=True, group=GROUP, extra_groups=[])
    return done.stdout + done.stderr


def by_hand(folder, account, port, more):
    peer = connected(POD, port)
    if account is None:
        return get(peer, "cart", more=more)
    context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
    context.check_hostname = False
    context.set_alpn_protocols(["istio-http/1.1", "istio", "http/1.1"])
    if account != "nobody":
        context.load_cert_chain(f"{folder}/{account}/cert-chain.pem", f"{folder}/{account}/key.pem")
    try:
        return get(context.wrap_socket(peer), "cart", more=more)
    except OSError as error:
        return str(error)


def registry_only(folder):
    write(folder, "sidecar.yaml", reach("REGISTRY_ONLY"))
    eventually("502 for who is no service", lambda: asked(OTHER, 9080, "other.example").startswith("502"))
    got = heard(OTHER, 7000)
    expect("TCP to who is no service is closed", "other" not in got, got)
    got = asked(REVIEWS, 9080, "reviews")
    expect("a service is served all the same", got.startswith("200 v1 "), got)


def told(cart):
    text = metrics()
    for reporter, service, code in (("source", "reviews", 200), ("destination", "cart", 200), ("destination", "cart", 403)):
        found = [line for line in text.splitlines() if line.startswith("istio_requests_total") and f'response_code="{code}"' in line
                 and f'reporter="{reporter}"' in line and f'destination_service_name="{service}"' in line]
        expect(f"requests told of by the {reporter}, {code}", found, text[:400])
    for name in ("PassthroughCluster", "BlackHoleCluster", "inbound|8080||"):
        eventually(f"a line of the access log with {name}", lambda: name in cart.access())


def main(script, run):
    """What both scripts do by their arguments: in namespaces of the kernel's, or not at all."""
    name = os.path.basename(script)
    if sys.argv[1:2] == ["--world"]:
        world()
    elif sys.argv[1:2] == ["--call"]:
        import ast
        function, *arguments = ast.literal_eval(sys.argv[2])
        try:
            print({"asked": asked, "heard": heard, "spoken": spoken, "by_hand": by_hand}[function](*arguments))
        except OSError as error:
            print(error)
    elif sys.argv[1:2] == ["--inside"]:
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            run(folder)
        for line in failed:
            print(f"{name}:", line, file=sys.stderr)
        sys.exit(bool(failed))
    else:
        missing = [tool for tool in ("unshare", "ip", "openssl") if shutil.which(tool) is None]
        missing += [] if shutil.which("nft") or shutil.which("iptables") else ["nft or iptables"]
        possible = not missing and os.geteuid() == 0 and subprocess.run(
            ["unshare", "--net", "--mount", "true"], capture_output=True, group=GROUP, extra_groups=[]).returncode == 0
        if not possible:
            print(f"{name}: NOT TRIED: no root, no namespaces, or no {missing}", file=sys.stderr)
            sys.exit(SKIPPED)
        sys.exit(subprocess.run(["unshare", "--net", "--mount", sys.executable, script, "--inside"]).returncode)


if __name__ == "__main__":
    main(__file__, run)
