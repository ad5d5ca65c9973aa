// Makes the certificates in ca-core/testdata/istio with Istio's own CA, so that a test can lay ours beside them.
//
//	go run ./certificates ../../../ca-core/testdata
//
// They are committed: the test needs no Go. Run it again when Istio changes its templates; every byte will differ.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"istio.io/istio/security/pkg/pki/ca"
	"istio.io/istio/security/pkg/pki/util"
)

const (
	identity = "spiffe://cluster.local/ns/shop/sa/cart"
	// Longer than any test's idea of now: the dates of the issuer bound those of the certificates.
	rootLifetime = 100 * 365 * 24 * time.Hour
	leafLifetime = 24 * time.Hour
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: %s <testdata>", os.Args[0]))
	}
	if err := makeAll(os.Args[1]); err != nil {
		fail(err)
	}
}

func makeAll(testdata string) error {
	folder := filepath.Join(testdata, "istio")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	write := func(name string, pem []byte) error {
		return os.WriteFile(filepath.Join(folder, name), pem, 0o644)
	}
	// As NewSelfSignedIstioCAOptions asks for its root.
	rootCert, rootKey, err := util.GenCertKeyFromOptions(util.CertOptions{
		TTL: rootLifetime, Org: "cluster.local", IsCA: true, IsSelfSigned: true, RSAKeySize: 2048, PKCS8Key: true,
	})
	if err != nil {
		return err
	}
	bundle, err := util.NewVerifiedKeyCertBundleFromPem(rootCert, rootKey, nil, rootCert, nil)
	if err != nil {
		return err
	}
	istio, err := ca.NewIstioCA(&ca.IstioCAOptions{
		DefaultCertTTL: leafLifetime, MaxCertTTL: leafLifetime, KeyCertBundle: bundle,
	})
	if err != nil {
		return err
	}
	if err := write("root.pem", rootCert); err != nil {
		return err
	}
	if err := write("root-key.pem", rootKey); err != nil {
		return err
	}
	for _, request := range []string{"p256", "rsa2048", "ed25519", "common-name"} {
		csr, err := os.ReadFile(filepath.Join(testdata, "csr", request+".pem"))
		if err != nil {
			return err
		}
		leaf, err := istio.Sign(csr, ca.CertOpts{SubjectIDs: []string{identity}, TTL: leafLifetime})
		if err != nil {
			return fmt.Errorf("%s: %w", request, err)
		}
		if err := write("leaf-"+request+".pem", leaf); err != nil {
			return err
		}
	}
	csr, err := os.ReadFile(filepath.Join(testdata, "csr", "p256.pem"))
	if err != nil {
		return err
	}
	below, err := istio.Sign(csr, ca.CertOpts{SubjectIDs: []string{identity}, TTL: leafLifetime, ForCA: true})
	if err != nil {
		return err
	}
	if err := write("intermediate.pem", below); err != nil {
		return err
	}
	serving, _, err := istio.GenKeyCert([]string{"istiod.istio-system.svc"}, leafLifetime, true)
	if err != nil {
		return err
	}
	return write("serving.pem", serving)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "certificates:", err)
	os.Exit(1)
}
