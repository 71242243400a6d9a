"""Those that are compared: each file tells one of them to do a piece of work. Listed in the order of the tables."""

from peers.base import Peer, Running
from peers.caddy import Caddy
from peers.envoy import Envoy
from peers.haproxy import HAProxy
from peers.limen import Limen
from peers.nginx import Nginx
from peers.pingora import Pingora
from peers.traefik import Traefik

ALL = (Limen, Envoy, Nginx, HAProxy, Pingora, Traefik, Caddy)

__all__ = ["ALL", "Peer", "Running"]
