"""An SDS server that is wrong on purpose: the control that tells whether the Envoy run can fail.

It takes what a real agent writes into its output folder and serves it wrongly:
  mismatched   each new certificate, but always with the first key
  stale        the first certificate for ever

Usage: wrong_sds.py mismatched|stale FOLDER SOCKET PROTO_FOLDER
"""

import os
import sys
import threading
import time
from concurrent import futures

import grpc

FAULT, FOLDER, SOCKET, PROTO_FOLDER = sys.argv[1:]
sys.path.insert(0, PROTO_FOLDER)
sds, services = grpc.protos_and_services("envoy/service/secret/v3/sds.proto")
discovery = grpc.protos("envoy/service/discovery/v3/discovery.proto")
tls = grpc.protos("envoy/extensions/transport_sockets/tls/v3/secret.proto")

TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def read(name):
    with open(os.path.join(FOLDER, name), "rb") as file:
        return file.read()


FIRST_CHAIN = read("cert-chain.pem")
FIRST_KEY = read("key.pem")


def secret(name):
    made = tls.Secret(name=name)
    if name == "ROOTCA":
        made.validation_context.trusted_ca.inline_bytes = read("root-cert.pem")
    else:
        chain = FIRST_CHAIN if FAULT == "stale" else read("cert-chain.pem")
        made.tls_certificate.certificate_chain.inline_bytes = chain
        made.tls_certificate.private_key.inline_bytes = FIRST_KEY
    return made.SerializeToString()


class Server(services.SecretDiscoveryServiceServicer):
    def StreamSecrets(self, requests, context):
        # One name for each stream, which is how Envoy asks.
        name = next(requests).resource_names[0]
        # Whether it accepts what it gets is counted by Envoy and judged there.
        threading.Thread(target=lambda: [None for _ in requests], daemon=True).start()
        sent = None
        version = 0
        while context.is_active():
            wanted = secret(name)
            if wanted != sent:
                sent = wanted
                version += 1
                response = discovery.DiscoveryResponse(
                    version_info=str(version), nonce=str(version), type_url=TYPE
                )
                response.resources.add(type_url=TYPE, value=wanted)
                yield response
            time.sleep(0.05)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(16))
    services.add_SecretDiscoveryServiceServicer_to_server(Server(), server)
    server.add_insecure_port("unix:" + SOCKET)
    server.start()
    print("serving", SOCKET, flush=True)
    server.wait_for_termination()


main()
