package man

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// files parses the Go files of a folder of the tree, without its tests.
func files(t *testing.T, folder string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file)
	}
	if len(all) == 0 {
		t.Fatalf("no Go files in %s", folder)
	}
	return all
}

// text is all that the Go files of a folder contain, without its tests.
func text(t *testing.T, folder string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("..", folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}

// literal is the value of a constant string, or of the constant beginning of
// one that is put together.
func literal(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		return literal(e.X)
	case *ast.CallExpr: // fmt.Sprintf
		if len(e.Args) > 0 {
			text, ok = literal(e.Args[0])
			text, _, _ = strings.Cut(text, "%")
			return text, ok
		}
	}
	return "", false
}

// level is the word for slog.LevelInfo and the like, or empty.
func level(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	switch s.Sel.Name {
	case "LevelDebug", "Debug":
		return "debug"
	case "LevelInfo", "Info":
		return "info"
	case "LevelWarn", "Warn":
		return "warning"
	case "LevelError", "Error":
		return "error"
	}
	return ""
}

// messages returns all messages that the program can log, with their levels;
// a level that depends is empty.
//
// A message is the first argument of Debug, Info, Warn and Error, the third
// of LogAttrs, and in package admin what functions return beside a level and
// attributes.
func messages(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, folder := range []string{"admin", "cmd/stsmap", "socketmap", "systemd", "policy", "postfix", "stsfetch", "cache", "cache/bolt", "resolver"} {
		for _, file := range files(t, folder) {
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					addCall(t, all, n)
				case *ast.ReturnStmt:
					if text, ok := returned(n); ok && folder == "admin" {
						all[text] = level(n.Results[0])
					}
				}
				return true
			})
		}
	}
	return all
}

// returned is the message that a function like admin's describe returns.
func returned(r *ast.ReturnStmt) (text string, ok bool) {
	if len(r.Results) != 3 {
		return "", false
	}
	return literal(r.Results[1])
}

// addCall notes the message of a call that logs.
func addCall(t *testing.T, all map[string]string, call *ast.CallExpr) {
	t.Helper()
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return
	}
	if fun.Sel.Name == "LogAttrs" && len(call.Args) >= 3 {
		// Without a constant it is what describe returned.
		if text, ok := literal(call.Args[2]); ok {
			all[text] = level(call.Args[1])
		}
		return
	}
	word := level(fun)
	if word == "" {
		return
	}
	text, ok := call.Args[0].(*ast.BasicLit)
	if !ok {
		t.Errorf("%s is called with a message that is not constant", fun.Sel.Name)
		return
	}
	message, _ := literal(text)
	all[message] = word
}

// hints returns the constant beginnings of all hints: what is assigned to a
// field "hint", and the attribute of that name.
func hints(t *testing.T) []string {
	t.Helper()
	var all []string
	add := func(e ast.Expr) {
		if text, ok := literal(e); ok {
			all = append(all, text)
		} else {
			t.Errorf("a hint does not begin with a constant: %#v", e)
		}
	}
	for _, file := range files(t, "cmd/stsmap") {
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if name, ok := n.Key.(*ast.Ident); ok && name.Name == "hint" {
					add(n.Value)
				}
			case *ast.AssignStmt:
				if s, ok := n.Lhs[0].(*ast.SelectorExpr); ok && s.Sel.Name == "hint" {
					add(n.Rhs[0])
				}
			case *ast.CallExpr:
				for i, a := range n.Args {
					if text, ok := literal(a); ok && text == "hint" && i+1 < len(n.Args) {
						add(n.Args[i+1])
					}
				}
			}
			return true
		})
	}
	return all
}

// exitCodes returns the values of the constants named exit…, in the order of
// the source.
func exitCodes(t *testing.T) []int {
	t.Helper()
	var all []int
	for _, file := range files(t, "cmd/stsmap") {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "exit") || len(spec.Values) != 1 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.INT {
				code, err := strconv.Atoi(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, code)
			}
			return true
		})
	}
	return all
}
