// The work of benches/src/issuance.rs by Istio's own CA, imported from Istio's module.
package main

import (
	"errors"
	"runtime/debug"

	"istio.io/istio/security/pkg/pki/ca"
	"istio.io/istio/security/pkg/pki/util"

	"peer/turns"
)

func main() {
	turns.Serve("Istio's own CA ("+version()+")", prepare)
}

func prepare(material turns.Material) (turns.Work, error) {
	bundle, err := util.NewVerifiedKeyCertBundleFromPem(material.Certificate, material.Key, nil, material.Certificate, nil)
	if err != nil {
		return nil, err
	}
	istio, err := ca.NewIstioCA(&ca.IstioCAOptions{
		DefaultCertTTL: turns.Lifetime,
		MaxCertTTL:     turns.Lifetime,
		KeyCertBundle:  bundle,
	})
	if err != nil {
		return nil, err
	}
	return func() error {
		options := ca.CertOpts{SubjectIDs: []string{turns.Name}, TTL: turns.Lifetime}
		issued, err := istio.Sign(material.Request, options)
		if err == nil && len(issued) == 0 {
			err = errors.New("nothing was issued")
		}
		return err
	}, nil
}

func version() string {
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, module := range build.Deps {
			if module.Path == "istio.io/istio" {
				return module.Version
			}
		}
	}
	return "unknown version"
}
