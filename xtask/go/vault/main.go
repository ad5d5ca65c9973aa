// Vault as it is published, without what nobody here asks of it: the core with its HTTP API, the PKI engine, and logins by JWT and
// by tokens of Kubernetes.
// `cargo xtask interop vault` builds and starts it. It comes up sealed, and everything else is asked of it over its API.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
	_ "unsafe" // for go:linkname

	"github.com/hashicorp/go-hclog"
	jwtauth "github.com/hashicorp/vault-plugin-auth-jwt"
	kubeauth "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/command/server"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/version"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "loopback address of the API")
	folder := flag.String("data", "", "folder for what is stored, and for ca.pem, which clients verify the API with")
	flag.Parse()
	if err := run(*address, *folder); err != nil {
		log.Fatal(err)
	}
}

func run(address, folder string) error {
	certificate, err := servingCertificate(filepath.Join(folder, "ca.pem"))
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return err
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: "vault", Level: hclog.Info, Output: os.Stderr})
	// On disk, so that one that is started again has what it had.
	storage, err := file.NewFileBackend(map[string]string{"path": filepath.Join(folder, "storage")}, logger)
	if err != nil {
		return err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		StorageType:        "file",
		LogicalBackends:    engines,
		CredentialBackends: logins,
		BuiltinRegistry:    builtins{},
		DisableMlock:       true,
		Logger:             logger,
		RawConfig:          &server.Config{SharedConfig: &configutil.SharedConfig{}},
	})
	if err != nil {
		return err
	}
	fmt.Println("version", version.GetVersion().VersionNumber())
	fmt.Println("serving", listener.Addr())
	properties := &vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{Type: "tcp"}}
	api := http.Server{Handler: vaulthttp.Handler.Handler(properties), ReadHeaderTimeout: 10 * time.Second}
	return api.Serve(listener)
}

// A key and certificate for this machine, below a CA that has no key any more.
func servingCertificate(caFile string) (tls.Certificate, error) {
	none := tls.Certificate{}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return none, err
	}
	day := time.Now().Add(24 * time.Hour)
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "CA of this Vault's listener"},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              day,
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return none, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return none, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "Vault"},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     day,
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return none, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}, os.WriteFile(caFile, text, 0o600)
}

// What Vault finds by name when it is told to mount it.
type builtins struct{}

var (
	engines = map[string]logical.Factory{"pki": pki.Factory}
	logins  = map[string]logical.Factory{"jwt": jwtauth.Factory, "kubernetes": kubeauth.Factory}
)

func factories(kind consts.PluginType) map[string]logical.Factory {
	switch kind {
	case consts.PluginTypeSecrets:
		return engines
	case consts.PluginTypeCredential:
		return logins
	}
	return nil
}

func (builtins) Contains(name string, kind consts.PluginType) bool {
	_, found := factories(kind)[name]
	return found
}

func (builtins) Get(name string, kind consts.PluginType) (func() (interface{}, error), bool) {
	factory, found := factories(kind)[name]
	return func() (interface{}, error) { return factory, nil }, found
}

func (builtins) Keys(kind consts.PluginType) []string {
	var names []string
	for name := range factories(kind) {
		names = append(names, name)
	}
	return names
}

func (b builtins) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, b.Contains(name, kind)
}

func (builtins) IsBuiltinEntPlugin(string, consts.PluginType) bool {
	return false
}

// What the API says of features that only the enterprise's Vault has: that it has not got them.
//
//go:linkname enterprisePaths github.com/hashicorp/vault/vault.entPaths
var enterprisePaths func(*vault.SystemBackend) []*framework.Path

// Vault's own releases are built with the SDK beside them. The published one is a little newer, and panics over a path that can
// create something and cannot say whether it is there: some of these.
func init() {
	paths := enterprisePaths
	enterprisePaths = func(system *vault.SystemBackend) []*framework.Path {
		all := paths(system)
		for _, path := range all {
			if path.ExistenceCheck == nil {
				path.ExistenceCheck = nothingIsThere
			}
		}
		return all
	}
}

func nothingIsThere(context.Context, *logical.Request, *framework.FieldData) (bool, error) {
	return false, nil
}
