#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second, small client of Blob for the tests: it makes what they need and looks at what Cairn left.

It signs on its own (nothing is shared with userspace/origin), so that a mistake in one is seen by the
other. The service and the account come from the environment: AZURITE_URL (http://127.0.0.1:PORT, or
https, trusted by SSL_CERT_FILE), AZURE_STORAGE_ACCOUNT, AZURE_STORAGE_KEY.

  azure.py create CONTAINER             azure.py get CONTAINER/NAME [FILE]
  azure.py put CONTAINER/NAME FILE      azure.py flip CONTAINER/NAME OFFSET     (one bit)
  azure.py delete CONTAINER/NAME        azure.py truncate CONTAINER/NAME LENGTH
  azure.py list CONTAINER               (name, length, etag)
  azure.py sas CONTAINER[/NAME] [PERMISSIONS] [VALID_SECONDS]
"""
import base64
import datetime
import email.utils
import hashlib
import hmac
import http.client
import os
import sys
import urllib.parse
import xml.etree.ElementTree

VERSION = "2021-12-02"
URL = urllib.parse.urlsplit(os.environ.get("AZURITE_URL", "http://127.0.0.1:10000"))
ACCOUNT = os.environ.get("AZURE_STORAGE_ACCOUNT", "devstoreaccount1")
KEY = os.environ.get("AZURE_STORAGE_KEY", "")


def sign(text):
    mac = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256)
    return base64.b64encode(mac.digest()).decode()


def request(method, path, query=None, headers=None, body=b"", expect=(200, 201, 202, 206)):
    query = query or {}
    headers = dict(headers or {})
    headers["x-ms-version"] = VERSION
    headers["x-ms-date"] = email.utils.formatdate(usegmt=True)
    target = f"/{ACCOUNT}/" + urllib.parse.quote(path)
    ms = "".join(f"{k}:{headers[k]}\n" for k in sorted(headers) if k.startswith("x-ms-"))
    resource = f"/{ACCOUNT}{target}" + "".join(f"\n{k}:{query[k]}" for k in sorted(query))
    length = str(len(body)) if body else ""
    text = "\n".join([method, "", "", length, "", "", "", "", "", "", "", "", ms + resource])
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{sign(text)}"
    headers["Content-Length"] = str(len(body))
    kind = http.client.HTTPSConnection if URL.scheme == "https" else http.client.HTTPConnection
    c = kind(URL.hostname, URL.port, timeout=60)
    c.request(method, target + ("?" + urllib.parse.urlencode(query) if query else ""), body, headers)
    r = c.getresponse()
    data = r.read()
    if r.status not in expect:
        sys.exit(f"azure.py: {method} {path}: {r.status} {r.reason}\n{data.decode(errors='replace')}")
    return r, data


def create(container):
    request("PUT", container, {"restype": "container"}, expect=(201, 409))


def put(path, data):
    """As blocks of 4 MiB, as any uploader would."""
    if len(data) <= 4 << 20:
        request("PUT", path, headers={"x-ms-blob-type": "BlockBlob"}, body=data)
        return
    ids = []
    for i, off in enumerate(range(0, len(data), 4 << 20)):
        ids.append(base64.b64encode(b"%08d" % i).decode())
        request("PUT", path, {"comp": "block", "blockid": ids[-1]}, body=data[off:off + (4 << 20)])
    xml_list = "".join(f"<Latest>{i}</Latest>" for i in ids)
    request("PUT", path, {"comp": "blocklist"},
            body=f'<?xml version="1.0"?><BlockList>{xml_list}</BlockList>'.encode())


def get(path):
    return request("GET", path)[1]


def blobs(container):
    marker = ""
    while True:
        q = {"restype": "container", "comp": "list"}
        if marker:
            q["marker"] = marker
        root = xml.etree.ElementTree.fromstring(request("GET", container, q)[1])
        for b in root.iter("Blob"):
            yield b.findtext("Name"), int(b.findtext("Properties/Content-Length")), b.findtext("Properties/Etag")
        marker = root.findtext("NextMarker") or ""
        if not marker:
            return


def sas(path, permissions="rl", seconds="3600"):
    """A service SAS, for a container or for one blob. Negative seconds: it has expired."""
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    now = datetime.datetime.now(datetime.timezone.utc)
    end = now + datetime.timedelta(seconds=int(seconds))
    start = min(now, end) - datetime.timedelta(hours=1)
    se, st = end.strftime(stamp), start.strftime(stamp)
    kind = "b" if "/" in path else "c"
    fields = [permissions, st, se, f"/blob/{ACCOUNT}/{path}", "", "", "", VERSION, kind, "", "",
              "", "", "", "", ""]
    return urllib.parse.urlencode({"sv": VERSION, "sr": kind, "sp": permissions, "st": st, "se": se,
                                   "sig": sign("\n".join(fields))})


def main(argv):
    cmd, args = argv[1], argv[2:]
    if cmd == "create":
        create(args[0])
    elif cmd == "put":
        with open(args[1], "rb") as f:
            put(args[0], f.read())
    elif cmd == "get":
        data = get(args[0])
        with open(args[1], "wb") if len(args) > 1 else sys.stdout.buffer as f:
            f.write(data)
    elif cmd == "delete":
        request("DELETE", args[0])
    elif cmd == "flip":
        data = bytearray(get(args[0]))
        data[int(args[1])] ^= 0x10
        put(args[0], bytes(data))
    elif cmd == "truncate":
        put(args[0], get(args[0])[:int(args[1])])
    elif cmd == "list":
        for name, length, etag in blobs(args[0]):
            print(name, length, etag)
    elif cmd == "sas":
        print(sas(*args))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv)
