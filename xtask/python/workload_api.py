"""Follows an identity with the library that Python applications use for the SPIFFE Workload API.

Each identity goes into a folder of its own below FOLDER, as key.pem, cert-chain.pem and root-cert.pem, and
is told in a line `identity NUMBER SPIFFE_ID`. Before that, what a single request for roots gave is told in a
line `bundles TRUST_DOMAIN NUMBER_OF_ROOTS`.

Usage: workload_api.py SOCKET FOLDER
"""

import os
import sys
import threading

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import WorkloadApiClient

SOCKET, FOLDER = sys.argv[1:]

given_up = threading.Event()
count = 0


def told(*words):
    print(*words, flush=True)


def obtained(context):
    global count
    count += 1
    svid = context.default_svid
    folder = os.path.join(FOLDER, str(count))
    os.makedirs(folder)
    svid.save(
        os.path.join(folder, "cert-chain.pem"), os.path.join(folder, "key.pem"), Encoding.PEM
    )
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    bundle.save(os.path.join(folder, "root-cert.pem"), Encoding.PEM)
    told("identity", count, svid.spiffe_id)


def failed(error):
    print(error, file=sys.stderr, flush=True)
    given_up.set()


with WorkloadApiClient("unix://" + SOCKET) as client:
    for bundle in client.fetch_x509_bundles().bundles:
        told("bundles", bundle.trust_domain, len(bundle.x509_authorities))
    client.stream_x509_contexts(obtained, failed)
    # Until it is ended from outside, or the library gives up.
    given_up.wait()
sys.exit(1)
