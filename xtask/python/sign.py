"""Asks a CA for certificates, as a client that shares no code with it.

Reads a JSON list of {"csr", "token" (or null), "seconds"} from standard input and prints a JSON
list of {"code", "message", "chain"}, in the same order. The server's certificate is verified.

Usage: sign.py ADDRESS ROOT_CERTIFICATE PROTO_FOLDER < CALLS
"""

import json
import sys

import grpc

ADDRESS, ROOT_CERTIFICATE, PROTO_FOLDER = sys.argv[1:]
sys.path.insert(0, PROTO_FOLDER)
ca, services = grpc.protos_and_services("security/v1alpha1/ca.proto")

SECONDS_TO_ANSWER = 20


def call(stub, wish):
    request = ca.IstioCertificateRequest(csr=wish["csr"], validity_duration=wish["seconds"])
    headers = []
    if wish["token"] is not None:
        headers.append(("authorization", "Bearer " + wish["token"]))
    try:
        response = stub.CreateCertificate(request, metadata=headers, timeout=SECONDS_TO_ANSWER)
    except grpc.RpcError as error:
        return {"code": error.code().name, "message": error.details(), "chain": []}
    return {"code": "OK", "message": "", "chain": list(response.cert_chain)}


def main():
    with open(ROOT_CERTIFICATE, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    with grpc.secure_channel(ADDRESS, credentials) as channel:
        stub = services.IstioCertificateServiceStub(channel)
        json.dump([call(stub, wish) for wish in json.load(sys.stdin)], sys.stdout)


main()
