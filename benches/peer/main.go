// The work of benches/src/issuance.rs with Go's standard library, by the calls that Istio's CA makes and with its
// template. What Istio adds around them (its bundle's lock, its lifetime checks) is left out; istio/ has all of it.
package main

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"time"

	"peer/turns"
)

const clockSkewGracePeriod = 2 * time.Minute

func main() {
	turns.Serve("the calls of Istio's CA", prepare)
}

func prepare(material turns.Material) (turns.Work, error) {
	certificate, err := parse(material.Certificate, x509.ParseCertificate)
	if err != nil {
		return nil, err
	}
	key, err := parse(material.Key, x509.ParsePKCS8PrivateKey)
	if err != nil {
		return nil, err
	}
	return func() error {
		issued, err := issue(material.Request, certificate, key)
		if err == nil && len(issued) == 0 {
			err = errors.New("nothing was issued")
		}
		return err
	}, nil
}

func issue(request []byte, issuer *x509.Certificate, key crypto.PrivateKey) ([]byte, error) {
	csr, err := parse(request, x509.ParseCertificateRequest)
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	names, err := alternativeNames(turns.Name)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-clockSkewGracePeriod),
		NotAfter:              now.Add(turns.Lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{names},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, csr.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

func alternativeNames(uri string) (pkix.Extension, error) {
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}
	value, err := asn1.Marshal([]asn1.RawValue{name})
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: value}, err
}

func parse[T any](text []byte, read func([]byte) (T, error)) (T, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		var none T
		return none, errors.New("not PEM")
	}
	return read(block.Bytes)
}
