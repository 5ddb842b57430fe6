"""What a cluster has as add-ons and a bare control plane lacks: names of services and pods (by dnsmasq), and volumes for
claims (local directories, which a node gives the owner that a pod's fsGroup asks for, as it does with disks).

  node.py DIRECTORY SERVER ADDRESS     reads DIRECTORY/token and pki/ca.pem, answers at ADDRESS:53, until SIGTERM
"""
import json
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

DOMAIN = "svc.cluster.local"


class Server:
    def __init__(self, directory, address):
        self.address, self.token = address, (directory / "token").read_text().strip()
        self.context = ssl.create_default_context(cafile=directory / "pki" / "ca.pem")

    def call(self, path, body=None):
        request = urllib.request.Request(self.address + path, data=body and json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
            return json.load(answer)


def full_name(item):
    return f"{item['metadata']['name']}.{item['metadata']['namespace']}.{DOMAIN}"


def addresses(server):
    """Lines of a hosts file: services by their own address; headless ones, and pods below them, by the pods'."""
    for service in server.call("/api/v1/services")["items"]:
        if service["spec"].get("clusterIP", "None") != "None":
            yield f"{service['spec']['clusterIP']} {full_name(service)}"
    for endpoints in server.call("/api/v1/endpoints")["items"]:
        for subset in endpoints.get("subsets") or []:
            for address in subset.get("addresses") or []:
                if "hostname" in address:
                    yield f"{address['ip']} {address['hostname']}.{full_name(endpoints)} {full_name(endpoints)}"


class Names:
    def __init__(self, directory, address):
        self.file, self.known = directory / "names", None
        self.file.touch()
        self.process = subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file",
             "--bind-interfaces", f"--listen-address={address}", f"--addn-hosts={self.file}", "--local=/cluster.local/"])
        # Before it listens SIGHUP ends it.
        while self.process.poll() is None:
            try:
                socket.create_connection((address, 53), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)

    def refresh(self, server):
        if self.process.poll() is not None:
            raise SystemExit("dnsmasq ended")
        lines = "\n".join(sorted(addresses(server))) + "\n"
        if lines != self.known:
            self.file.write_text(lines)
            self.process.send_signal(signal.SIGHUP)
            self.known = lines


def provide(server, directory):
    """A volume for each claim that waits for one."""
    for claim in server.call("/api/v1/persistentvolumeclaims")["items"]:
        name = f"{claim['metadata']['namespace']}-{claim['metadata']['name']}"
        path = directory / "volumes" / name
        if claim["status"].get("phase") != "Pending" or path.exists():
            continue
        path.mkdir()
        server.call("/api/v1/persistentvolumes", volume(claim, name, path))


def volume(claim, name, path):
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": {"namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"]},
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }


def main():
    directory = pathlib.Path(sys.argv[1])
    server, names = Server(directory, sys.argv[2]), Names(directory, sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        while True:
            try:
                names.refresh(server)
                provide(server, directory)
            except OSError as error:
                print(error, flush=True)
            time.sleep(0.5)
    finally:
        names.process.terminate()
        names.process.wait()


main()
