#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Entra ID's token endpoint and for IMDS, on a free port of 127.0.0.1: entra.py DIR CERT KEY

It checks what is sent to it and hands out tokens as Azurite's `--oauth basic` wants them. Files in DIR
tell it, at each request, how to be: `life` (seconds), `audience`, `secret` (the client secret that is
right), `assertion` (the federated token that is right), and `mode`: good, hang, refuse or garbage.
A second server, over TLS, is a Blob in which nobody has a role: it answers 403 to each token.
It leaves `port`, `blob_port`, `tokens` (each one handed out) and `log` (a line for each request, without secrets).
"""
import base64
import http.server
import json
import os
import pathlib
import secrets
import ssl
import sys
import threading
import time
import urllib.parse

DIR = pathlib.Path(sys.argv[1])
LOCK = threading.Lock()
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def setting(name, otherwise=""):
    try:
        return (DIR / name).read_text().strip()
    except FileNotFoundError:
        return otherwise


def encode(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def new_token(client):
    now, life = int(time.time()), int(setting("life", "3600"))
    claims = {
        "iss": "https://sts.windows.net/contoso/", "aud": setting("audience", "https://storage.azure.com/"),
        "iat": now, "nbf": now - 5, "exp": now + life, "appid": client, "oid": "00000000-aaaa-bbbb-cccc-000000000000",
    }
    token = ".".join([encode({"alg": "RS256", "typ": "JWT"}), encode(claims), secrets.token_urlsafe(200)])
    with LOCK, open(DIR / "tokens", "a") as f:
        f.write(token + "\n")
    return {"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "access_token": token}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def note(self, line):
        with LOCK, open(DIR / "log", "a") as f:
            f.write(line + "\n")

    def reply(self, status, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, code, text):
        self.note(f"refused {code}")
        self.reply(status, {"error": code, "error_description": text + "\r\nTrace ID: 1"})

    def misbehaves(self):
        mode = setting("mode", "good")
        self.note(f"{self.command} {mode}")
        if mode == "hang":
            time.sleep(3600)
        if mode == "refuse":
            self.refuse(400, "invalid_request", "Identity not found")
        if mode == "garbage":
            self.reply(200, b"<html>log in to the hotel</html>")
        return mode != "good"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        q = dict(urllib.parse.parse_qsl(url.query))
        if self.misbehaves():
            return
        if url.path != "/metadata/identity/oauth2/token" or self.headers.get("Metadata") != "true":
            self.refuse(400, "invalid_request", "Required metadata header not specified")
        elif q.get("resource") != "https://storage.azure.com/" or q.get("api-version") != "2018-02-01":
            self.refuse(400, "invalid_resource", "no such resource")
        else:
            self.note(f"imds {q.get('client_id', '-')}")
            answer = new_token(q.get("client_id", "99999999-0000-0000-0000-000000000000"))
            self.reply(200, {k: str(v) for k, v in answer.items()})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        q = dict(urllib.parse.parse_qsl(body))
        if self.misbehaves():
            return
        if self.path != "/contoso/oauth2/v2.0/token" or q.get("scope") != "https://storage.azure.com/.default":
            self.refuse(400, "invalid_scope", "AADSTS70011: no such tenant or scope")
        elif "client_assertion" in q:
            if q["client_assertion"] != setting("assertion") or q.get("client_assertion_type") != ASSERTION_TYPE:
                self.refuse(401, "invalid_client", "AADSTS700024: Client assertion is not within its valid time range.")
                return
            self.note("workload")
            self.reply(200, new_token(q["client_id"]))
        elif q.get("client_secret") != setting("secret"):
            self.refuse(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        else:
            self.note("environment")
            self.reply(200, new_token(q["client_id"]))


class BlobWithoutRoles(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        bearer = self.headers.get("Authorization", "").startswith("Bearer ")
        self.send_response(403 if bearer else 401)
        self.send_header("x-ms-error-code", "AuthorizationPermissionMismatch" if bearer else "NoAuthenticationInformation")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET


blob = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BlobWithoutRoles)
blob.daemon_threads = True
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[2], sys.argv[3])
blob.socket = tls.wrap_socket(blob.socket, server_side=True)
threading.Thread(target=blob.serve_forever, daemon=True).start()
(DIR / "blob_port").write_text(str(blob.server_port))

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
(DIR / "port.new").write_text(str(server.server_port))
os.rename(DIR / "port.new", DIR / "port")
server.serve_forever()
