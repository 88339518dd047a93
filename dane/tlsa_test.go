package dane

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"stsmap/resolver"
)

// TestUsable checks what makes a record usable (conformance C14, C15).
func TestUsable(t *testing.T) {
	spki := marshal(t, newEd25519(t).Public())
	cert := selfSigned(t, newEd25519(t))
	for _, c := range []struct {
		usage, selector, matching uint8
		data                      []byte
		want                      string // "": usable
	}{
		{3, 1, 1, make([]byte, 32), ""},
		{2, 0, 2, make([]byte, 64), ""}, // D20
		{2, 1, 1, make([]byte, 32), ""},
		{3, 0, 2, make([]byte, 64), ""},
		{3, 1, 0, spki, ""}, // D20
		{2, 1, 0, spki, ""},
		{3, 0, 0, cert, ""},
		{2, 0, 0, cert, ""},
		{0, 0, 1, make([]byte, 32), "usage 0 is not for SMTP"},
		{1, 1, 1, make([]byte, 32), "usage 1 is not for SMTP"},
		{4, 1, 1, make([]byte, 32), "usage 4 is unknown"},
		{255, 1, 1, make([]byte, 32), "usage 255 is unknown"},
		{3, 2, 1, make([]byte, 32), "selector 2 is unknown"},
		{3, 255, 0, cert, "selector 255 is unknown"},
		{3, 1, 3, make([]byte, 48), "matching type 3 is unknown"},
		{3, 1, 255, nil, "matching type 255 is unknown"},
		{3, 1, 1, make([]byte, 31), "matching type 1 with 31 bytes, not 32"},
		{3, 1, 1, make([]byte, 33), "matching type 1 with 33 bytes, not 32"},
		{3, 1, 1, nil, "matching type 1 with 0 bytes, not 32"},
		{3, 1, 1, make([]byte, 64), "matching type 1 with 64 bytes, not 32"},
		{3, 1, 2, make([]byte, 32), "matching type 2 with 32 bytes, not 64"},
		{3, 0, 0, nil, "not a certificate"},
		{3, 0, 0, make([]byte, 32), "not a certificate"},
		{3, 0, 0, spki, "not a certificate"},
		{3, 0, 0, cert[:len(cert)-1], "not a certificate"},
		{3, 0, 0, append(cert[:len(cert):len(cert)], 0, 0), "2 bytes behind the certificate"},
		{3, 1, 0, nil, "not a public key"},
		{3, 1, 0, cert, "not a public key"},
		{3, 1, 0, spki[:len(spki)-1], "not a public key"},
		{3, 1, 0, append(spki[:len(spki):len(spki)], spki...), "44 bytes behind the public key"},
	} {
		checkUsable(t, resolver.TLSA{Usage: c.usage, Selector: c.selector, Matching: c.matching, Data: c.data}, c.want)
	}
}

func checkUsable(t *testing.T, r resolver.TLSA, want string) {
	t.Helper()
	got := ""
	if err := Usability(r); err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("%d %d %d %.20x…: %q, want %q", r.Usage, r.Selector, r.Matching, r.Data, got, want)
	}
}

// TestKeys checks that keys are accepted as by OpenSSL, not as by crypto/x509,
// both alone and in a certificate.
func TestKeys(t *testing.T) {
	const broken = "a public key that its algorithm does not allow"
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var (
		rsaOID = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
		pssOID = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
		ecOID  = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
		p256   = der(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})
		ed448  = asn1.ObjectIdentifier{1, 3, 101, 113}
		point  = uncompressed(t, newEC(t, elliptic.P256()))
		pkcs1  = x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)
		null   = []byte{5, 0}
	)
	off := append([]byte(nil), point...)
	off[64] ^= 1
	hybrid := append([]byte(nil), point...)
	hybrid[0] = 6 | point[64]&1
	packed := append([]byte{2 | point[64]&1}, point[1:33]...)
	for name, c := range map[string]struct {
		spki []byte
		want string
	}{
		"RSA":                {marshal(t, rsaKey.Public()), ""},
		"RSA without NULL":   {spki(t, rsaOID, nil, pkcs1), ""},
		"RSA-PSS":            {spki(t, pssOID, nil, pkcs1), ""},
		"RSA, huge exponent": {spki(t, rsaOID, null, der(t, struct{ N, E *big.Int }{rsaKey.N, new(big.Int).Lsh(big.NewInt(1), 99)})), ""},
		"RSA, negative":      {spki(t, rsaOID, null, der(t, struct{ N, E *big.Int }{big.NewInt(-7), big.NewInt(3)})), ""},
		"RSA and more":       {spki(t, rsaOID, null, append(pkcs1[:len(pkcs1):len(pkcs1)], 0)), broken},
		"RSA, no numbers":    {spki(t, rsaOID, null, point), broken},
		"P-224":              {marshal(t, newEC(t, elliptic.P224()).Public()), ""},
		"P-256":              {marshal(t, newEC(t, elliptic.P256()).Public()), ""},
		"P-384":              {marshal(t, newEC(t, elliptic.P384()).Public()), ""},
		"P-521":              {marshal(t, newEC(t, elliptic.P521()).Public()), ""},
		"P-256, compressed":  {spki(t, ecOID, p256, packed), ""},
		"P-256, hybrid":      {spki(t, ecOID, p256, hybrid), ""},
		"P-256, beside":      {spki(t, ecOID, p256, off), broken},
		"P-256, short":       {spki(t, ecOID, p256, point[:64]), broken},
		"P-256, other form":  {spki(t, ecOID, p256, append([]byte{9}, point...)), broken},
		"P-256, empty":       {spki(t, ecOID, p256, nil), broken},
		"EC without curve":   {spki(t, ecOID, nil, point), broken},
		"EC, written out":    {spki(t, ecOID, der(t, struct{ V int }{1}), point), ""},
		"brainpoolP256r1":    {spki(t, ecOID, der(t, asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}), point), ""},
		"secp256k1":          {spki(t, ecOID, der(t, asn1.ObjectIdentifier{1, 3, 132, 0, 10}), point), ""},
		"Ed25519":            {marshal(t, newEd25519(t).Public()), ""},
		"Ed25519, short":     {spki(t, asn1.ObjectIdentifier{1, 3, 101, 112}, nil, make([]byte, 31)), broken},
		"Ed448":              {spki(t, ed448, nil, make([]byte, 57)), ""},
		"Ed448, short":       {spki(t, ed448, nil, make([]byte, 32)), broken},
		"ML-DSA-65":          {spki(t, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 18}, nil, make([]byte, 1952)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			checkUsable(t, resolver.TLSA{Usage: 3, Selector: 1, Data: c.spki}, c.want)
			want := c.want
			if want != "" {
				want = "certificate with " + want
			}
			checkUsable(t, resolver.TLSA{Usage: 3, Selector: 0, Data: handMade(t, c.spki)}, want)
		})
	}
}

// TestCertificates checks that certificates with the usual keys count.
func TestCertificates(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{rsaKey, newEC(t, elliptic.P256()), newEC(t, elliptic.P384()), newEd25519(t)} {
		checkUsable(t, resolver.TLSA{Usage: 2, Data: selfSigned(t, key)}, "")
	}
}

// TestCertificateFields checks that all fields of a certificate are required.
func TestCertificateFields(t *testing.T) {
	key := marshal(t, newEd25519(t).Public())
	set := []byte{0x31, 0}
	for field := range 4 {
		fields := certFields(t, key)
		fields[1+field] = asn1.RawValue{FullBytes: set}
		checkUsable(t, resolver.TLSA{Usage: 3, Data: assemble(t, fields)}, "not a certificate")
	}
	checkUsable(t, resolver.TLSA{Usage: 3, Data: assemble(t, certFields(t, key)[:5])}, "not a certificate")
}

func newEd25519(t testing.TB) crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEC(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func uncompressed(t testing.TB, key *ecdsa.PrivateKey) []byte {
	b, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func marshal(t testing.TB, key crypto.PublicKey) []byte {
	b, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func selfSigned(t testing.TB, key crypto.Signer) []byte {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "mx.example.com"},
		DNSNames:     []string{"mx.example.com"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<32, 0),
	}
	b, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func der(t testing.TB, v any) []byte {
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spki makes a public key of any algorithm.
func spki(t testing.TB, id asn1.ObjectIdentifier, params, key []byte) []byte {
	return der(t, publicKey{
		Algorithm: pkix.AlgorithmIdentifier{Algorithm: id, Parameters: asn1.RawValue{FullBytes: params}},
		Key:       asn1.BitString{Bytes: key, BitLength: 8 * len(key)},
	})
}

// handMade makes a certificate that crypto/x509 refuses for its negative serial
// number.
func handMade(t testing.TB, key []byte) []byte {
	b := assemble(t, certFields(t, key))
	if _, err := x509.ParseCertificate(b); err == nil || !strings.Contains(err.Error(), "negative") {
		t.Errorf("crypto/x509 says %v", err)
	}
	return b
}

// certFields are serial number, algorithm, issuer, validity, subject and key.
func certFields(t testing.TB, key []byte) []asn1.RawValue {
	empty := []byte{0x30, 0}
	validity := der(t, struct{ From, To time.Time }{time.Unix(0, 0).UTC(), time.Unix(1<<30, 0).UTC()})
	fields := []asn1.RawValue{
		{FullBytes: der(t, big.NewInt(-5))},
		{FullBytes: der(t, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}})},
	}
	for _, b := range [][]byte{empty, validity, empty, key} {
		fields = append(fields, asn1.RawValue{FullBytes: b})
	}
	return fields
}

func assemble(t testing.TB, fields []asn1.RawValue) []byte {
	return der(t, []any{
		fields,
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}},
		asn1.BitString{Bytes: make([]byte, 64), BitLength: 512},
	})
}
