package dane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// A certificate has those fields of RFC 5280, Section 4.1, that OpenSSL needs to
// read one. crypto/x509 would be too strict: it refuses keys and serial numbers
// that Postfix accepts, and then the record would count for Postfix and not for
// us. encoding/asn1 ignores the fields of a SEQUENCE that follow those here.
type certificate struct {
	TBS struct {
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    *big.Int
		Algorithm asn1.RawValue
		Issuer    asn1.RawValue
		Validity  asn1.RawValue
		Subject   asn1.RawValue
		Key       publicKey
	}
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// A publicKey is a SubjectPublicKeyInfo (RFC 5280, Section 4.1.2.7).
type publicKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

// checkCertificate returns nil if data is exactly one certificate.
func checkCertificate(data []byte) error {
	var c certificate
	rest, err := asn1.Unmarshal(data, &c)
	if err != nil {
		return errors.New("not a certificate")
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes behind the certificate", len(rest))
	}
	for _, v := range []asn1.RawValue{c.TBS.Algorithm, c.TBS.Issuer, c.TBS.Validity, c.TBS.Subject} {
		if v.Class != asn1.ClassUniversal || v.Tag != asn1.TagSequence || !v.IsCompound {
			return errors.New("not a certificate")
		}
	}
	if err := c.TBS.Key.check(); err != nil {
		return fmt.Errorf("certificate with %w", err)
	}
	return nil
}

// checkKey returns nil if data is exactly one public key.
func checkKey(data []byte) error {
	var k publicKey
	rest, err := asn1.Unmarshal(data, &k)
	if err != nil {
		return errors.New("not a public key")
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes behind the public key", len(rest))
	}
	return k.check()
}

// check decodes keys of the algorithms that mail servers use. Others pass: which
// of them Postfix can use depends on its OpenSSL.
func (k publicKey) check() error {
	ok := true
	b := k.Key.Bytes
	switch k.Algorithm.Algorithm.String() {
	case "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10": // RFC 8017, Appendix A.1 (also for PSS)
		ok = isRSA(b)
	case "1.2.840.10045.2.1": // RFC 5480, Section 2.1.1
		ok = isPoint(k.Algorithm.Parameters.FullBytes, b)
	case "1.3.101.112": // Ed25519: RFC 8410, Section 3
		ok = len(b) == 32
	case "1.3.101.113": // Ed448
		ok = len(b) == 57
	}
	if !ok {
		return errors.New("a public key that its algorithm does not allow")
	}
	return nil
}

// isRSA reports whether b has the two numbers of an RSA key. Like OpenSSL, and
// unlike crypto/rsa, it accepts any size and sign.
func isRSA(b []byte) bool {
	var k struct{ N, E *big.Int }
	rest, err := asn1.Unmarshal(b, &k)
	return err == nil && len(rest) == 0
}

// isPoint reports whether b can be a point on the curve. It knows the curves of
// crypto/elliptic and the usual encodings of points; all others pass.
func isPoint(params, b []byte) bool {
	if len(b) == 0 {
		return false
	}
	var id asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(params, &id); err != nil {
		return len(params) > 0 // possibly explicit curve parameters
	}
	var curve elliptic.Curve
	switch id.String() {
	case "1.3.132.0.33":
		curve = elliptic.P224()
	case "1.2.840.10045.3.1.7":
		curve = elliptic.P256()
	case "1.3.132.0.34":
		curve = elliptic.P384()
	case "1.3.132.0.35":
		curve = elliptic.P521()
	default:
		return true
	}
	switch b[0] {
	case 4:
		_, err := ecdsa.ParseUncompressedPublicKey(curve, b)
		return err == nil
	case 2, 3:
		x, _ := elliptic.UnmarshalCompressed(curve, b)
		return x != nil
	}
	return b[0] == 6 || b[0] == 7 // both coordinates and the parity of y
}
