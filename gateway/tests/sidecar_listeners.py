#!/usr/bin/env python3
"""The listeners that a Sidecar writes itself, `egress[]` and `ingress[]`, who is taken by mutual TLS on which port, and what heads say: in the
same namespaces as `sidecar.py`, whose servers and clients these are.

LIMEN_BIN names the binary. Ends as `sidecar.py` does.
"""
import os, socket, subprocess, sys, threading

import sidecar
from sidecar import (CART, DB, GROUP, HTTP, OTHER, POD, REDIRECT, REVIEWS, TCP, V1, V2, WORLD, Limen, asked, banner, certificates, connected,
                     endpoint, eventually, expect, failed, get, head_of, heard, http, network, outside, serve, service, sh,
                     spoken, start_world, tls_or_plain, write)

# An address where nobody is, and a service whose port has no protocol in its name.
NOWHERE, QUIET = "203.0.113.1", "10.96.0.40"
# Of the pod, of the world, and of a service.
POD6, PEER6, BASE6 = "fd77::2", "fd77::1", "fd96::20"
WITHOUT_RULES = "15020,15021,15090,8082"

MESH = (
    service("reviews", REVIEWS, HTTP) + endpoint("reviews", V1, HTTP)
    + service("reviews-v2", "10.96.0.11", HTTP) + endpoint("reviews-v2", V2, HTTP)
    + service("base", "10.96.0.20", TCP) + endpoint("base", DB, TCP)
    + service("quiet", QUIET, ("quiet", 7000)) + endpoint("quiet", OTHER, ("quiet", 7000))
    + service("six", BASE6, TCP) + endpoint("six", DB, TCP)
    + service("cart", CART, ("http", 8080), "selector: {app: cart},")
)


def listeners(folder):
    return f"""
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: cart, namespace: default}}
spec:
  workloadSelector: {{labels: {{app: cart}}}}
  outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}
  egress:
  - port: {{number: 9080, protocol: HTTP, name: http}}
    hosts: [./reviews.default.svc.cluster.local]
  - port: {{number: 3306, protocol: TCP, name: tcp}}
    captureMode: NONE
    hosts: [./base.default.svc.cluster.local]
  - port: {{number: 3128, protocol: HTTP_PROXY, name: proxy}}
    bind: 127.0.0.2
    captureMode: NONE
    hosts: ['./*']
  - port: {{number: 0, protocol: HTTP, name: unix}}
    bind: unix://{folder}/run/egress.sock
    hosts: [./reviews.default.svc.cluster.local]
  - hosts: ['./*']
  ingress:
  - port: {{number: 8080, protocol: HTTP, name: http}}
    defaultEndpoint: 127.0.0.1:18080
  - port: {{number: 8081, protocol: HTTP, name: unix}}
    defaultEndpoint: unix://{folder}/run/app.sock
  - port: {{number: 8082, protocol: TCP, name: bound}}
    bind: {POD}
    captureMode: NONE
    defaultEndpoint: 0.0.0.0:18082
  - port: {{number: 8083, protocol: HTTPS, name: https}}
    tls: {{mode: SIMPLE, serverCertificate: {folder}/cart/cert-chain.pem, privateKey: {folder}/cart/key.pem}}
    defaultEndpoint: 127.0.0.1:18080
  - port: {{number: 8084, protocol: HTTP, name: limited}}
    connectionPool: {{tcp: {{maxConnections: 1}}, http: {{http1MaxPendingRequests: 1}}}}
    defaultEndpoint: 127.0.0.1:18084
  - port: {{number: 8085, protocol: TCP, name: tcp}}
  - port: {{number: 8086, protocol: HTTPS, name: mutual}}
    tls: {{mode: MUTUAL, serverCertificate: {folder}/cart/cert-chain.pem, privateKey: {folder}/cart/key.pem, caCertificates: {folder}/ca.pem}}
    defaultEndpoint: 127.0.0.1:18080
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: cart, namespace: default}}
spec:
  selector: {{matchLabels: {{app: cart}}}}
  mtls: {{mode: STRICT}}
  portLevelMtls:
    8080: {{mode: PERMISSIVE}}
    8082: {{mode: DISABLE}}
    8083: {{mode: DISABLE}}
    8084: {{mode: DISABLE}}
    8085: {{mode: DISABLE}}
    8086: {{mode: DISABLE}}
    7001: {{mode: DISABLE}}
"""


def mesh_config(text):
    return f"""
apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data: {{mesh: "{text}"}}
"""


def serve_unix(path, each):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(64)

    def loop():
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=each, args=(peer, ("unix", 0)), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def held(release):
    """Answers when it is told to."""

    def each(peer, client):
        with peer:
            while head_of(peer):
                release.wait()
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nheld")

    return each


def six():
    """The same network by IPv6."""
    sh(f"ip address add {POD6}/64 dev pod nodad && ip netns exec {WORLD} ip address add {PEER6}/64 dev world nodad")
    sh(f"ip route add default via {PEER6} && ip netns exec {WORLD} ip route add default via {POD6}")


def run(folder):
    network()
    six()
    for name in ("config", "run"):
        os.mkdir(f"{folder}/{name}")
        os.chmod(f"{folder}/{name}", 0o777)
    with open(f"{folder}/hosts", "w") as hosts:
        hosts.write(f"127.0.0.1 localhost\n{OTHER} named.example\n")
    sh(f"mount --bind {folder}/hosts /etc/hosts")
    certificates(folder)
    write(folder, "mesh.yaml", MESH)
    write(folder, "sidecar.yaml", listeners(folder))
    release = threading.Event()
    for address, port, each in (
        ("127.0.0.1", 18080, http("app")), (POD, 18082, banner("bound")), ("127.0.0.1", 18084, held(release)),
        ("0.0.0.0", 8085, banner("tcp")), (POD6, 8085, banner("six")), ("0.0.0.0", 7001, banner("open")), ("0.0.0.0", 7002, banner("shut")),
    ):
        serve(address, port, each)
    serve_unix(f"{folder}/run/app.sock", http("unix"))
    beside, cart = start_world(), None
    try:
        cart = Limen(folder, "cart", f"{folder}/cart", "app=cart", f"{POD},{POD6}")
        ready = lambda: asked("127.0.0.1", 15021, "localhost", "/healthz/ready").startswith("200")
        eventually("the sidecar to be ready, or to end", lambda: not cart.alive() or ready())
        if failed or not cart.alive():
            return failed.append(f"the sidecar did not start: {cart.child.poll()}")
        subprocess.run([REDIRECT, "-u", "", "-g", str(GROUP), "-d", WITHOUT_RULES], check=True)
        egress(folder)
        ingress(folder)
        both_families(folder)
        limits(release)
        peers(folder)
        heads(folder)
        aliases(folder)
        detection(folder)
        names(folder)
        expect("it is alive", cart.alive(), cart.alive())
    finally:
        release.set()
        if cart:
            cart.child.kill()
            if failed:
                print(f"--- {cart.logs}\n{cart.said()}{cart.access()}", file=sys.stderr)
        beside.kill()


# ---- the cases ------------------------------------------------------------------------------------------------------


def egress(folder):
    got = asked(REVIEWS, 9080, "reviews")
    expect("egress, a port: what it imports", got.startswith("200 v1 "), got)
    got = asked("10.96.0.11", 9080, "reviews-v2")
    expect("egress, a port: what it does not import, though a later listener does", got.startswith("502"), got)
    got = heard("127.0.0.1", 3306, b"select")
    expect("egress, captureMode NONE without bind", got.startswith("base ") and got.endswith("select"), got)
    got = heard("10.96.0.20", 3306, b"select")
    expect("egress, the last listener: the same port at the service's address", got.startswith("base "), got)
    for target, host, wanted in (("http://reviews:9080/x", "reviews:9080", "200 v1 "), ("/x", "reviews-v2:9080", "200 v2 "),
                                 ("http://reviews/x", "reviews", "502"), ("http://other.example/", "other.example", "502")):
        got = asked("127.0.0.2", 3128, host, target)
        expect(f"egress, HTTP_PROXY: {host}", got.startswith(wanted), got)
    path = f"{folder}/run/egress.sock"
    for host, wanted in (("reviews:9080", "200 v1 "), ("reviews-v2:9080", "502")):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(10)
        peer.connect(path)
        got = get(peer, host)
        expect(f"egress, unix socket: {host}", got.startswith(wanted), got)


def both_families(folder):
    got = heard(BASE6, 3306, b"select")
    expect("IPv6: TCP to a service's address", got.startswith("base ") and got.endswith("select"), got)
    got = asked("fd96::99", 80, "nobody")
    expect("IPv6: to who is no service", not got.startswith("200"), got)
    got = outside(("asked", POD6, 8080, "cart"))
    expect("IPv6: HTTP in", got.startswith("200 app "), got)
    got = outside(("heard", POD6, 8085, b"ping"))
    expect("IPv6: TCP in, where it was going", got.startswith("six from ::6") and "ping" in got, got)


def ingress(folder):
    got = outside(("asked", POD, 8080, "cart"))
    expect("ingress to 127.0.0.1", got.startswith("200 app "), got)
    got = tls_or_plain(folder, "shop", 8081)
    expect("ingress to a unix socket", got.startswith("200 unix "), got)
    got = outside(("heard", POD, 8082, b"ping"))
    expect("ingress, bind and captureMode NONE, to 0.0.0.0", got.startswith("bound from 127.0.0.6") and "ping" in got, got)
    # A client of the user's own TLS: with no certificate, and none of the mesh is asked for.
    got = tls_or_plain(folder, "nobody", 8083)
    expect("ingress with tls", got.startswith("200 app "), got)
    got = outside(("asked", POD, 8083, "cart"))
    expect("ingress with tls, in the clear", not got.startswith("200"), got)
    for account, wanted in (("shop", True), ("alien", True), ("nobody", False)):
        got = tls_or_plain(folder, account, 8086)
        expect(f"ingress with mutual tls of the user's own: {account}", got.startswith("200 app ") == wanted, got)
    got = outside(("heard", POD, 8085, b"ping"))
    expect("ingress where the connection was going", got.startswith("tcp from 127.0.0.6") and "ping" in got, got)


def limits(release):
    """One connection, one request that waits for it, and no more."""
    answers = []
    ask = lambda: answers.append(outside(("asked", POD, 8084, "cart")))
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually("the limits of ingress to refuse", lambda: any(answer.startswith("503") for answer in answers))
    release.set()
    for thread in threads:
        thread.join()
    served = [answer for answer in answers if answer.startswith("200 held")]
    expect("the limits of ingress: who was let in is served", 1 <= len(served) <= 2, answers)


def peers(folder):
    for port, account, wanted in (
        (8080, None, "200 app "), (8080, "shop", "200 app "), (8080, "alien", ""), (8080, "nobody", ""),
        (8081, None, ""), (8081, "shop", "200 unix "), (8081, "alien", ""), (8081, "nobody", ""),
    ):
        got = tls_or_plain(folder, account, port)
        good = got.startswith(wanted) if wanted else not got.startswith("200")
        expect(f"{'PERMISSIVE' if port == 8080 else 'STRICT'}: {account or 'in the clear'}", good, got)
    got = outside(("spoken", POD, 7001, b"ping"))
    expect("DISABLE on a port of no service", got.startswith("open from") and "ping" in got, got)
    got = outside(("spoken", POD, 7002, b"ping"))
    expect("STRICT on a port of no service", "shut" not in got, got)


def heads(folder):
    said = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Request-Id: own\r\nX-Forwarded-Client-Cert: By=first\r\n"
    got = asked(REVIEWS, 9080, "reviews", more=said).lower()
    for wanted in ("x-forwarded-for: 192.0.2.7\r\n", "x-forwarded-proto: https\r\n", "x-request-id: own\r\n", "x-envoy-attempt-count: 1\r\n"):
        expect(f"on the way out, {wanted.strip()}", wanted in got, got)
    for unwanted in ("x-forwarded-client-cert", "x-envoy-external-address"):
        expect(f"on the way out, no {unwanted}", unwanted not in got, got)
    got = tls_or_plain(folder, "shop", 8081, said).lower()
    for wanted in ("x-forwarded-for: 192.0.2.7", "x-forwarded-proto: https", "x-request-id: own",
                   "x-forwarded-client-cert: by=first,by=spiffe://cluster.local/ns/default/sa/cart;hash=",
                   ";uri=spiffe://cluster.local/ns/default/sa/shop"):
        expect(f"on the way in, {wanted}", wanted in got, got)
    for unwanted in ("cert=\"", "x-envoy-attempt-count", "x-envoy-external-address"):
        expect(f"on the way in, no {unwanted}", unwanted not in got, got)
    got = outside(("asked", POD, 8080, "cart", "/", said)).lower()
    expect("in the clear nobody is told of certificates", "x-forwarded-client-cert" not in got and got.startswith("200"), got)
    with connected(REVIEWS, 9080) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: reviews\r\n\r\n")
        got = head_of(peer).lower()
    expect("who answers the workload", "\r\nserver: envoy\r\n" in got, got)


def aliases(folder):
    """What MeshConfig says of sidecars holds, and what it says of gateways does not."""
    write(folder, "istio.yaml", mesh_config(
        "{trustDomainAliases: [other.example], protocolDetectionTimeout: 0.1s, defaultConfig: {"
        "proxyHeaders: {forwardedClientCert: SANITIZE_SET, setCurrentClientCertDetails: {cert: true, subject: false}}, "
        "gatewayTopology: {proxyProtocol: {}, numTrustedProxies: 2, forwardClientCertDetails: ALWAYS_FORWARD_ONLY}}}"))
    ask = lambda: tls_or_plain(folder, "alien", 8081, "X-Forwarded-Client-Cert: By=first\r\n")
    got = eventually("a caller of an alias of the trust domain", lambda: (got := ask()).startswith("200 unix ") and got) or ""
    expect("setCurrentClientCertDetails", ';cert="' in got.lower() and ";subject=" not in got.lower(), got)
    expect("forwardedClientCert", "by=first" not in got.lower() and "/sa/alien" in got, got)
    got = asked(REVIEWS, 9080, "reviews")
    expect("no PROXY header is waited for", got.startswith("200 v1 "), got)


def detection(folder):
    got = heard(QUIET, 7000, b"ping")
    expect("who waits for the server on a port without a protocol", got.startswith("other ") and got.endswith("ping"), got)


def names(folder):
    os.unlink(f"{folder}/config/sidecar.yaml")
    write(folder, "istio.yaml", mesh_config("{outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}}"))
    ask = lambda host, port=80: asked(NOWHERE, port, host)
    eventually("a name, wherever it was sent", lambda: ask("named.example").startswith("200 other "))
    got = ask("named.example:9080", 4711)
    expect("a name and its port, on a port that no listener has", got.startswith("200 other "), got)
    got = ask(OTHER)
    expect("an address as a name", got.startswith("200 other "), got)
    got = ask("nowhere.example")
    expect("a name that nobody knows", got.startswith("503 DNS resolution failure"), got)
    got = spoken(OTHER, 7000, b"\0ping")
    expect("bytes go where they were going", got.startswith("other ") and got.endswith("ping"), got)


if __name__ == "__main__":
    sidecar.main(__file__, run)
