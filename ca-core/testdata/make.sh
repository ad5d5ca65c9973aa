#!/usr/bin/env bash
# Makes the requests and keys in this folder with OpenSSL, an implementation that is not ours. They are committed: a
# test needs no OpenSSL. Run it again to make them anew (every byte will differ, no test may care).
set -euo pipefail
cd "$(dirname "$0")"
rm -rf csr key && mkdir csr key
k() { openssl genpkey -quiet "$@" 2>/dev/null || openssl genpkey "$@" 2>/dev/null; }
k -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key/rsa2048.pem
k -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out key/rsa1024.pem
k -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3 -out key/rsa2048-exponent-3.pem
for c in P-256:p256 P-384:p384 P-521:p521 P-224:p224 secp256k1:secp256k1; do
  k -algorithm EC -pkeyopt ec_paramgen_curve:${c%%:*} -pkeyopt ec_param_enc:named_curve -out key/${c##*:}.pem
done
k -algorithm ED25519 -out key/ed25519.pem
k -algorithm ED448 -out key/ed448.pem

openssl rsa -in key/rsa2048.pem -traditional -out key/rsa2048-pkcs1.pem 2>/dev/null
openssl ec -in key/p256.pem -out key/p256-sec1.pem 2>/dev/null
openssl ec -in key/p384.pem -out key/p384-sec1.pem 2>/dev/null
openssl ecparam -name prime256v1 -genkey -out key/p256-with-parameters.pem 2>/dev/null
openssl ec -in key/p256.pem -no_public -out key/p256-sec1-no-public.pem 2>/dev/null
openssl pkcs8 -topk8 -in key/p256.pem -passout pass:secret -out key/p256-encrypted.pem

foreign='subjectAltName=URI:spiffe://evil/ns/kube-system/sa/admin'
req() { openssl req -new -key "key/$1.pem" -out "csr/$2.pem" "${@:3}"; }
for n in rsa2048 rsa1024 rsa2048-exponent-3 p256 p384 p521 p224 secp256k1 ed25519 ed448; do
  req $n $n -subj / -addext "$foreign"
done
req p384 p384-sha384 -subj / -sha384
req p256 p256-sha384 -subj / -sha384
req p256 p256-sha1 -subj / -sha1
req rsa2048 rsa2048-sha1 -subj / -sha1
req rsa2048 rsa2048-sha512 -subj / -sha512
req rsa2048 rsa2048-pss -subj / -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sha256
req p256 ca-true -subj /CN=ca -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
req p256 repeated-names -subj '/DC=com/DC=example/O=a/O=b/CN=one/CN=two'
req p256 multi-valued -multivalue-rdn -subj '/O=a+OU=b/CN=c+UID=d'
req p256 common-name -subj /CN=whatever
req p256 empty-organization -subj '/O=' 2>/dev/null || req p256 empty-organization -subj /O=x
req p256 unknown-extension -subj / -addext '1.3.6.1.4.1.99999.1=critical,ASN1:UTF8String:hello' -addext "$foreign"
long=$(head -c 250 /dev/zero | tr '\0' x); subject=; for i in $(seq 64); do subject="$subject/OU=${long:0:64}/O=${long:0:64}/L=${long:0:100}"; done
req p256 subject-16k -subj "$subject" -nameopt oneline
{ echo 'some text in front'; sed 's/CERTIFICATE REQUEST/NEW CERTIFICATE REQUEST/' csr/p256.pem; } > csr/old-label.pem
