"""An API server as far as `kubectl layers` asks one: it says what a real one was seen to say, keeps what it was
asked, and runs what is to be run in a pod here, with another root.

    api.py POD.json LAYERCTL ROOT LOG [FAULT]

It prints its port. FAULT: "forbidden" lets no pod be made, "pending" has none become ready.
"""

import base64
import hashlib
import json
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

POD, LAYERCTL, ROOT, LOG = sys.argv[1:5]
FAULT = sys.argv[5] if len(sys.argv) > 5 else ""
pods = {}
lock = threading.Lock()

VERBS = ["create", "delete", "get", "list", "watch"]
RESOURCES = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": VERBS, "shortNames": ["po"]},
        {"name": "pods/exec", "singularName": "", "namespaced": True, "kind": "PodExecOptions", "verbs": ["create", "get"]},
    ],
}
GROUPS = {"apps": ("daemonsets", "DaemonSet"), "batch": ("cronjobs", "CronJob")}
RESOURCES["resources"].append({"name": "namespaces", "singularName": "namespace", "namespaced": False, "kind": "Namespace", "verbs": VERBS})


def group(name):
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def made(pod):
    """A pod as it is once the node has started it."""
    pod = dict(pod)
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image\x1b[31m"}}
    state = waiting if FAULT == "pending" else {"running": {"startedAt": "2026-11-28T21:00:00Z"}}
    ready = "False" if FAULT == "pending" else "True"
    pod["status"] = {
        "phase": "Pending" if FAULT == "pending" else "Running",
        "conditions": [{"type": "Ready", "status": ready}],
        "containerStatuses": [
            {"name": c["name"], "ready": ready == "True", "restartCount": 0, "image": c["image"], "imageID": "", "state": state}
            for c in pod["spec"]["containers"]
        ],
    }
    pod["metadata"] = dict(pod["metadata"], uid="0b7c", resourceVersion="7", creationTimestamp="2026-11-28T21:00:00Z")
    return pod


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def note(self, **more):
        with lock, open(LOG, "a") as log:
            log.write(json.dumps({"method": self.command, "path": self.path, **more}) + "\n")

    def say(self, what, status=200):
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, reason, message):
        self.say({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": status}, status)

    def do_GET(self):
        at = urlsplit(self.path)
        parts = at.path.strip("/").split("/")
        if at.path == "/api":
            return self.say({"kind": "APIVersions", "versions": ["v1"]})
        if at.path == "/apis":
            return self.say({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(name) for name in GROUPS]})
        if parts[0] == "apis" and parts[1] in GROUPS and parts[2:] == ["v1"]:
            name, kind = GROUPS[parts[1]]
            resource = {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": VERBS}
            return self.say({"kind": "APIResourceList", "groupVersion": f"{parts[1]}/v1", "resources": [resource]})
        if at.path == "/api/v1":
            return self.say(RESOURCES)
        if parts[:3] == ["api", "v1", "namespaces"] and parts[4:5] == ["pods"]:
            if parts[6:] == ["exec"]:
                return self.exec(parse_qs(at.query))
            self.note()
            if len(parts) == 5:
                return self.list(parse_qs(at.query))
            with open(POD) as file:
                pod = json.load(file)
            if parts[5] == "web-0":
                return self.say(pod)
            if parts[5] in pods:
                return self.say(made(pods[parts[5]]))
            return self.fail(404, "NotFound", f'pods "{parts[5]}" not found')
        return self.fail(404, "NotFound", "the server could not find the requested resource")

    def list(self, query):
        """What `kubectl wait` looks at."""
        name = query.get("fieldSelector", ["="])[0].partition("=")[2]
        if query.get("watch"):
            # Nothing more happens, until nobody waits for it any more.
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            self.connection.settimeout(60)
            try:
                self.rfile.read(1)
            except OSError:
                pass
            self.close_connection = True
            return None
        items = [made(pods[name])] if name in pods else []
        return self.say({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items})

    def do_POST(self):
        if urlsplit(self.path).path.endswith("/exec"):
            return self.exec(parse_qs(urlsplit(self.path).query))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.note(body=body)
        if FAULT == "forbidden":
            return self.fail(403, "Forbidden", "pods is forbidden: violates PodSecurity \"baseline:latest\"")
        pods[body["metadata"]["name"]] = body
        return self.say(made(body), 201)

    def do_DELETE(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.note()
        name = urlsplit(self.path).path.split("/")[-1]
        pod = pods.pop(name, None)
        if pod is None:
            return self.fail(404, "NotFound", f'pods "{name}" not found')
        return self.say(made(pod))

    def exec(self, query):
        """The remote command protocol, version 5, over a WebSocket."""
        self.note(command=query["command"])
        if self.headers.get("Upgrade", "").lower() != "websocket":
            return self.fail(400, "BadRequest", "only WebSockets")
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v5.channel.k8s.io")
        self.end_headers()
        assert query["command"][:3] == ["/layerctl", "--root", "/host"], query
        stdin = b"".join(self.channel(0)) if query.get("stdin") == ["true"] else b""
        ran = subprocess.run(
            [LAYERCTL, "--root", ROOT, *query["command"][3:]], input=stdin, capture_output=True, env={"TZ": "UTC"}, check=False
        )
        for channel, data in ((1, ran.stdout), (2, ran.stderr)):
            for start in range(0, len(data), 32000):
                self.frame(bytes([channel]) + data[start : start + 32000])
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        if ran.returncode:
            causes = [{"reason": "ExitCode", "message": str(ran.returncode)}]
            message = f"command terminated with non-zero exit code: exit status {ran.returncode}"
            status.update(status="Failure", reason="NonZeroExitCode", message=message, details={"causes": causes})
        self.frame(b"\x03" + json.dumps(status).encode())
        self.frame(struct.pack(">H", 1000), 8)
        self.close_connection = True
        return None

    def frame(self, data, kind=2):
        length = len(data)
        head = bytes([0x80 | kind]) + (bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length))
        self.wfile.write(head + data)
        self.wfile.flush()

    def channel(self, wanted):
        """What comes on one channel, until it is closed."""
        while True:
            kind, length = self.rfile.read(2)
            length &= 0x7F
            if length >= 126:
                size = 2 if length == 126 else 8
                length = int.from_bytes(self.rfile.read(size), "big")
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(length)))
            if kind & 0x0F == 8 or data == bytes([255, wanted]):
                return
            if data[:1] == bytes([wanted]):
                yield data[1:]


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
