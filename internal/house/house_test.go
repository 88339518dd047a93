package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root         = "../.."
	longestFunc  = 100
	longestFile  = 700
	planFile     = "testdata/plan.txt"
	modulePrefix = "stsmap/"
)

// A source is one parsed Go file of the tree.
type source struct {
	path string // relative to the top of the tree, with slashes
	file *ast.File
	fset *token.FileSet
	text string
}

func (s source) folder() string { return path.Dir(s.path) }
func (s source) isTest() bool   { return strings.HasSuffix(s.path, "_test.go") }
func (s source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name != root && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "var" || d.Name() == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		all = append(all, source{filepath.ToSlash(rel), file, fset, string(text)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found only %d Go files: the walk is broken", len(all))
	}
	return all
}

// plan returns what each folder may import, from testdata/plan.txt.
func plan(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(planFile)
	if err != nil {
		t.Fatal(err)
	}
	may := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		folder, imports, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok {
			may[folder] = strings.Fields(imports)
		}
	}
	return may
}

// TestPlan: a package imports only what the plan allows. Tests may also use
// what tests are made with, and every package of ours.
func TestPlan(t *testing.T) {
	may := plan(t)
	for _, s := range sources(t) {
		allowed, known := may[s.folder()]
		if !known {
			t.Errorf("%s: folder %s is not in the plan (%s)", s.path, s.folder(), planFile)
			continue
		}
		if slices.Contains(allowed, "*") {
			continue
		}
		for _, imp := range s.file.Imports {
			name := strings.Trim(imp.Path.Value, `"`)
			if !strings.Contains(name, ".") && !strings.HasPrefix(name, modulePrefix) {
				continue // the standard library
			}
			if s.isTest() && (strings.HasPrefix(name, modulePrefix) || allowsImport(may["test"], name)) {
				continue
			}
			if !allowsImport(allowed, name) {
				t.Errorf("%s: %s may not import %s", s.at(imp), s.folder(), name)
			}
		}
	}
}

// allowsImport reports whether name is one of allowed or lies below one.
func allowsImport(allowed []string, name string) bool {
	name = strings.TrimPrefix(name, modulePrefix)
	return slices.ContainsFunc(allowed, func(a string) bool {
		return name == a || strings.HasPrefix(name, a+"/") && strings.Contains(a, ".")
	})
}

// TestState: no package-level variables but errors and embedded files, and no
// init functions.
func TestState(t *testing.T) {
	for _, s := range sources(t) {
		for _, decl := range s.file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s: init function", s.at(f))
			}
			g, ok := decl.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				if !allowedVariable(g, v) {
					t.Errorf("%s: package-level variable %s", s.at(v), v.Names[0].Name)
				}
			}
		}
	}
}

func allowedVariable(g *ast.GenDecl, v *ast.ValueSpec) bool {
	if v.Names[0].Name == "_" {
		return true // an assertion about types
	}
	for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool { return strings.HasPrefix(c.Text, "//go:embed") }) {
			return true
		}
	}
	return len(v.Values) > 0 && !slices.ContainsFunc(v.Values, func(e ast.Expr) bool {
		call, ok := e.(*ast.CallExpr)
		if !ok {
			return true
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		return !ok || fun.Sel.Name != "New" && fun.Sel.Name != "Errorf" || fmt.Sprint(fun.X) != "errors" && fmt.Sprint(fun.X) != "fmt"
	})
}

// TestSize: no function is longer than 100 lines, no file longer than 700.
func TestSize(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > longestFile {
			t.Errorf("%s has %d lines, more than %d", s.path, n, longestFile)
		}
		for _, decl := range s.file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; n > longestFunc {
				t.Errorf("%s: %s has %d lines, more than %d", s.at(f), f.Name.Name, n, longestFunc)
			}
		}
	}
}

// TestNames: a file is named for its idea.
func TestNames(t *testing.T) {
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(strings.TrimSuffix(s.path, ".go"), "/") {
			if slices.Contains([]string{"util", "utils", "common", "types", "helpers", "misc"}, part) {
				t.Errorf("%s: %q says nothing about what lives there", s.path, part)
			}
		}
	}
}

// TestWords: every exported name has a comment that begins with it and is a
// sentence, every package comment has a second paragraph, and the standard is
// cited in one form.
func TestWords(t *testing.T) {
	described := make(map[string]bool)
	folders := make(map[string]bool)
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		folders[s.folder()] = true
		if s.file.Doc != nil && strings.Contains(strings.TrimSpace(s.file.Doc.Text()), "\n\n") {
			described[s.folder()] = true
		}
		if s.file.Name.Name != "main" {
			for _, name := range undocumented(s) {
				t.Error(name)
			}
		}
	}
	for folder := range folders {
		if !described[folder] {
			t.Errorf("%s: the package comment has no second paragraph, which says what the package does not do", folder)
		}
	}
}

func undocumented(s source) (complaints []string) {
	check := func(n ast.Node, name string, doc *ast.CommentGroup) {
		if !ast.IsExported(name) {
			return
		}
		text := strings.TrimSpace(doc.Text())
		first, _, _ := strings.Cut(text, " ")
		article := first == "A" || first == "An" || first == "The"
		if article {
			_, text, _ = strings.Cut(text, " ")
			first, _, _ = strings.Cut(text, " ")
		}
		first = strings.TrimRight(first, ":,")
		if first != name || !strings.ContainsAny(text, ".:") {
			complaints = append(complaints, fmt.Sprintf("%s: %s needs a comment that begins with its name and is a sentence", s.at(n), name))
		}
	}
	for _, decl := range s.file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || ast.IsExported(receiver(d)) {
				check(d, d.Name.Name, d.Doc)
			}
		case *ast.GenDecl:
			checkSpecs(d, check)
		}
	}
	return complaints
}

func checkSpecs(d *ast.GenDecl, check func(ast.Node, string, *ast.CommentGroup)) {
	for _, spec := range d.Specs {
		switch v := spec.(type) {
		case *ast.TypeSpec:
			doc := v.Doc
			if doc == nil {
				doc = d.Doc
			}
			check(v, v.Name.Name, doc)
		case *ast.ValueSpec:
			doc := v.Doc
			if doc == nil {
				doc = v.Comment
			}
			if doc == nil && len(d.Specs) == 1 {
				doc = d.Doc
			}
			check(v, v.Names[0].Name, doc)
		}
	}
}

func receiver(f *ast.FuncDecl) string {
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	return fmt.Sprint(typ)
}

// TestReferences: an RFC is cited as "RFC 8461, Section 3.3" and never as
// "RFC8461", "§3.3" or "section 3.3 of RFC 8461".
func TestReferences(t *testing.T) {
	wrong := regexp.MustCompile(`RFC[0-9]|RFC-[0-9]|§ ?[0-9]|RFC [0-9]+ [Ss]ection|RFC [0-9]+ §|[Ss]ection [0-9.]+ of RFC`)
	for _, s := range sources(t) {
		if s.folder() == "internal/house" {
			continue
		}
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if m := wrong.FindString(c.Text); m != "" {
					t.Errorf("%s: cites %q; the form is \"RFC 8461, Section 3.3\"", s.at(c), m)
				}
			}
		}
	}
}

// TestSkips: a test that skips tells nothing.
func TestSkips(t *testing.T) {
	for _, s := range sources(t) {
		if s.folder() != "internal/house" && s.isTest() && regexp.MustCompile(`\b[tbf]\.Skip(f|Now)?\(`).MatchString(s.text) {
			t.Errorf("%s skips", s.path)
		}
	}
}
