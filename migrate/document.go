package migrate

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"stsmap/config"
)

// Limits on a document. The longest configuration that either program ships has 40 lines. The parser
// takes time that grows with the third power of the depth, so length and indentation are looked at
// before it runs.
const (
	maxBytes  = 32 << 10
	maxIndent = 64
	maxNodes  = 20000
)

// A kind is what a node is.
type kind uint8

const (
	null kind = iota
	scalar
	sequence
	mapping
)

// String has an article, for messages.
func (k kind) String() string {
	return [...]string{"empty", "a single value", "a list", "a mapping"}[k]
}

// A node is a value in a YAML document. The nodes of an alias are those of its anchor, so that a document
// whose aliases multiply takes no more room than its text.
type node struct {
	line    int
	kind    kind
	text    string  // of a scalar
	quoted  bool    // of a scalar: it is a string whatever it looks like
	items   []*node // of a sequence
	entries []entry // of a mapping, in order, merges last
}

// An entry is a key of a mapping and its value.
type entry struct {
	key   string
	line  int
	value *node
}

// parse reads data as one YAML document. An empty one is a null node.
func parse(data []byte) (*node, *config.Problem) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if bad := unfit(data); bad != nil {
		return nil, bad
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, syntaxProblem(err)
	}
	c := &converter{anchors: make(map[string]*node)}
	root := &node{line: 1}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if root.kind != null {
			return nil, &config.Problem{Line: lineOf(doc.Body), Reason: "a second document begins; want one"}
		}
		root = c.node(doc.Body)
	}
	if c.bad != nil {
		return nil, c.bad
	}
	return root, nil
}

// unfit says why data should not even be shown to the parser.
func unfit(data []byte) *config.Problem {
	if len(data) > maxBytes {
		return &config.Problem{Line: 1, Reason: fmt.Sprintf("too long for a configuration: more than %d bytes", maxBytes)}
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if !utf8.Valid(line) {
			return &config.Problem{Line: n, Reason: "not UTF-8"}
		}
		if len(line)-len(bytes.TrimLeft(line, " ")) > maxIndent {
			return &config.Problem{Line: n, Reason: fmt.Sprintf("too deep for a configuration: more than %d spaces before it", maxIndent)}
		}
	}
	return nil
}

// syntaxProblem is the one problem of a document that is not YAML. The parser's own text would quote the
// lines around it, and a password may be in them, so only its message is taken.
func syntaxProblem(err error) *config.Problem {
	bad := &config.Problem{Line: 1, Reason: "not YAML"}
	if y, ok := errors.AsType[yaml.Error](err); ok {
		bad.Reason += ": " + strings.ReplaceAll(y.GetMessage(), "\t", `\t`)
		if t := y.GetToken(); t != nil && t.Position != nil {
			bad.Line = max(t.Position.Line, 1)
		}
	}
	return bad
}

// A converter makes nodes of those of the parser.
type converter struct {
	anchors map[string]*node
	count   int
	bad     *config.Problem // the first; later ones are often its consequences
}

func (c *converter) fail(line int, reason string) *node {
	if c.bad == nil {
		c.bad = &config.Problem{Line: line, Reason: reason}
	}
	return &node{line: line}
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return max(t.Position.Line, 1)
	}
	return 1
}

// node converts n and all below it.
func (c *converter) node(n ast.Node) *node {
	if n == nil {
		return &node{}
	}
	line := lineOf(n)
	if c.count++; c.count > maxNodes {
		return c.fail(line, "too much for a configuration")
	}
	switch n := n.(type) {
	case *ast.AnchorNode:
		value := c.node(n.Value)
		// Only now, so that an alias cannot be within its own anchor.
		c.anchors[n.Name.String()] = value
		return value
	case *ast.AliasNode:
		value, ok := c.anchors[n.Value.String()]
		if !ok {
			return c.fail(line, "the alias has no anchor before it")
		}
		return value
	case *ast.TagNode:
		return c.tagged(n)
	case *ast.MappingNode:
		return c.mapping(line, n.Values)
	case *ast.MappingValueNode:
		return c.mapping(line, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		out := &node{line: line, kind: sequence}
		for _, item := range n.Values {
			out.items = append(out.items, c.node(item))
		}
		return out
	case *ast.NullNode:
		return &node{line: line}
	case *ast.LiteralNode:
		return &node{line: line, kind: scalar, text: n.Value.Value, quoted: true}
	case *ast.StringNode:
		t := n.Token.Type
		return &node{line: line, kind: scalar, text: n.Value, quoted: t == token.SingleQuoteType || t == token.DoubleQuoteType}
	case ast.ScalarNode:
		return &node{line: line, kind: scalar, text: n.GetToken().Value}
	}
	return c.fail(line, "not understood: this does not belong into a configuration")
}

// tagged converts a node with a tag, such as !!str.
func (c *converter) tagged(n *ast.TagNode) *node {
	value := c.node(n.Value)
	switch tag := n.Start.Value; tag {
	case "!!str":
		copied := *value
		copied.quoted = true
		return &copied
	case "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq":
		return value // what needs another type says so
	default:
		return c.fail(value.line, "has the tag "+tag+", which does not belong into a configuration")
	}
}

// mapping converts a mapping, and merges those into it that it asks for with "<<".
func (c *converter) mapping(line int, values []*ast.MappingValueNode) *node {
	out := &node{line: line, kind: mapping}
	seen := make(map[string]bool)
	var merges []*node
	for _, v := range values {
		if v.Key.IsMergeKey() {
			merges = append(merges, c.node(v.Value))
			continue
		}
		key := c.key(v.Key)
		if seen[key.text] {
			c.fail(key.line, "the key "+printable(key.text)+" is there twice")
		}
		seen[key.text] = true
		out.entries = append(out.entries, entry{key.text, key.line, c.node(v.Value)})
	}
	for i := 0; i < len(merges); i++ {
		m := merges[i]
		if m.kind == sequence {
			merges = slices.Concat(merges[:i+1], m.items, merges[i+1:])
			continue
		}
		if m.kind != mapping {
			c.fail(line, "what is merged with << is not a mapping")
		}
		for _, e := range m.entries {
			if c.count++; c.count > maxNodes {
				return c.fail(line, "too much for a configuration")
			}
			if !seen[e.key] {
				seen[e.key] = true
				out.entries = append(out.entries, e)
			}
		}
	}
	return out
}

// key converts a key, which must be a single value.
func (c *converter) key(k ast.MapKeyNode) *node {
	var value ast.Node = k
	if explicit, ok := k.(*ast.MappingKeyNode); ok {
		value = explicit.Value
	}
	n := c.node(value)
	switch {
	case n.kind == null && n.line == 0:
		n.line = lineOf(k)
	case n.kind == sequence || n.kind == mapping:
		c.fail(lineOf(k), "a key is "+n.kind.String()+", want a word")
	}
	n.text = strings.TrimSpace(n.text)
	return n
}
