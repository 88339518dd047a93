package fakenet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// authority issues the certificates of a Net. All leaves share one key, since a key costs more than a
// signature, and no check of a client depends on it.
type authority struct {
	root, intermediate, stranger *issuer
	leafKey                      *ecdsa.PrivateKey
	born                         time.Time
	serial                       atomic.Int64

	mu     sync.Mutex // guards what follows
	leaves map[certSpec]*tls.Certificate
}

// maxLeaves bounds the certificates kept. It is far above what cases describe; a bulk world needs one
// for every blockSize of its domains.
const maxLeaves = 8192

// certSpec says which certificate a host shows. It is comparable, to be the key of a cache.
type certSpec struct {
	kind   certKind
	names  string // DNS-IDs, joined by commas; the first is also the common name
	direct bool   // signed by the root, without an intermediate
}

// certKind is what is wrong with a certificate.
type certKind uint8

const (
	certGood certKind = iota
	certExpired
	certNotYet
	certSoon
	certSelfSigned
	certCNOnly
	certOtherCA
	certNone
)

// issuer is a certificate that signs others.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (i *issuer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

// newAuthority makes a root, an intermediate below it, and a root that clients do not trust.
func newAuthority() (*authority, error) {
	a := &authority{born: time.Now(), leaves: make(map[certSpec]*tls.Certificate)}
	var err error
	if a.root, err = a.newIssuer("fakenet root", nil); err != nil {
		return nil, err
	}
	if a.intermediate, err = a.newIssuer("fakenet intermediate", a.root); err != nil {
		return nil, err
	}
	if a.stranger, err = a.newIssuer("fakenet root that nobody trusts", nil); err != nil {
		return nil, err
	}
	a.leafKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return a, err
}

// newIssuer makes an issuer certified by parent, or by itself if parent is nil.
func (a *authority) newIssuer(name string, parent *issuer) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := a.template(name)
	template.NotBefore = a.born.AddDate(-1, 0, 0)
	template.NotAfter = a.born.AddDate(10, 0, 0)
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	template.ExtKeyUsage = nil
	up := &issuer{template, key}
	if parent != nil {
		up = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, up.cert, key.Public(), up.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &issuer{cert, key}, err
}

// template is what all certificates have in common.
func (a *authority) template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(a.born.UnixMilli()<<20 + a.serial.Add(1)),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             a.born.AddDate(0, -1, 0),
		NotAfter:              a.born.AddDate(5, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
}

// leaf returns the certificate for spec with its chain, issuing it on first use.
func (a *authority) leaf(spec certSpec) (*tls.Certificate, error) {
	a.mu.Lock()
	cert := a.leaves[spec]
	a.mu.Unlock()
	if cert != nil {
		return cert, nil
	}
	cert, err := a.issue(spec)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if first := a.leaves[spec]; first != nil { // another handshake was faster; a spec has one certificate
		return first, nil
	}
	if len(a.leaves) >= maxLeaves {
		for old := range a.leaves { // any one
			delete(a.leaves, old)
			break
		}
	}
	a.leaves[spec] = cert
	return cert, nil
}

// issue makes a certificate. The chain does not include the root, as on real servers.
func (a *authority) issue(spec certSpec) (*tls.Certificate, error) {
	names := strings.Split(spec.names, ",")
	template := a.template(names[0])
	template.DNSNames = names
	up := a.intermediate
	if spec.direct {
		up = a.root
	}
	switch spec.kind {
	case certExpired:
		template.NotBefore, template.NotAfter = a.born.AddDate(0, -3, 0), a.born.AddDate(0, 0, -1)
	case certNotYet:
		template.NotBefore = a.born.AddDate(0, 1, 0)
	case certSoon:
		template.NotAfter = a.born.AddDate(0, 0, 5)
	case certSelfSigned:
		up = &issuer{template, a.leafKey}
	case certCNOnly:
		template.DNSNames = nil
	case certOtherCA:
		up = a.stranger
	}
	if len(names[0]) > 64 { // the longest that RFC 5280, Appendix A.1, allows
		template.Subject.CommonName = ""
	}
	der, err := x509.CreateCertificate(rand.Reader, template, up.cert, a.leafKey.Public(), up.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", spec.names, err)
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leafKey}
	if up == a.intermediate {
		cert.Certificate = append(cert.Certificate, a.intermediate.cert.Raw)
	}
	return cert, nil
}

// certWords are the values of cert= that say what is wrong with a certificate.
func certWords() map[string]certKind {
	return map[string]certKind{
		"good": certGood, "expired": certExpired, "notyet": certNotYet, "soon": certSoon,
		"selfsigned": certSelfSigned, "cnonly": certCNOnly, "otherca": certOtherCA, "none": certNone,
	}
}

// read reads the value of cert=, for a host of that name.
func (s *certSpec) read(value, host string) error {
	s.kind, s.names = certGood, host
	word, name, named := strings.Cut(value, "=")
	kind, known := certWords()[word]
	switch {
	case (word == "name" || word == "wildcard") && name != "":
		s.names = name
	case value == "wildcard":
		_, parent, _ := strings.Cut(host, ".")
		s.names = "*." + parent
	case value == "othername":
		s.names = "othername.invalid"
	case known && !named:
		s.kind = kind
	default:
		return fmt.Errorf("unknown certificate %q", value)
	}
	return nil
}

// leafX509 is the certificate of leaf in parsed form.
func (a *authority) leafX509(spec certSpec) (*x509.Certificate, error) {
	cert, err := a.leaf(spec)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(cert.Certificate[0])
}
