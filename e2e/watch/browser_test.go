package watch

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// A browser is Chromium, told what to do by WebDriver (W3C Recommendation) and, for
// what that has no word for, by Chromium's own protocol.
type browser struct{ session string } // its URL

// startBrowser starts one without a window.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	address, dir := free(t), t.TempDir()
	_, port, _ := strings.Cut(address, ":")
	cmd := exec.Command("chromedriver", "--port="+port, "--allowed-ips=127.0.0.1", "--silent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // and Chromium, which is its child
		_ = cmd.Wait()
	})
	b := &browser{"http://" + address}
	eventually(t, "chromedriver is ready", func() error { return b.try("GET", "/status", nil, nil) })
	var s struct{ SessionID string }
	b.do(t, "POST", "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName":       "chrome",
		"goog:loggingPrefs": map[string]string{"browser": "ALL", "performance": "ALL"},
		"goog:chromeOptions": map[string]any{
			"args": []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
				"--no-first-run", "--hide-scrollbars", "--user-data-dir=" + dir},
		},
	}}}, &s)
	b.session += "/session/" + s.SessionID
	t.Cleanup(func() { _ = b.try("DELETE", "", nil, nil) })
	return b
}

// try sends a command, and reads the value of the answer.
func (b *browser) try(method, path string, body, value any) error {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, b.session+path, in)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return errors.New(string(text))
	}
	if value == nil {
		return nil
	}
	return json.Unmarshal(text, &struct{ Value any }{value})
}

func (b *browser) do(t *testing.T, method, path string, body, value any) {
	t.Helper()
	if err := b.try(method, path, body, value); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// open goes to a page and waits until it is there.
func (b *browser) open(t *testing.T, url string) {
	t.Helper()
	b.do(t, "POST", "/url", map[string]any{"url": url}, nil)
}

// eval returns what an expression is on the page.
func (b *browser) eval(t *testing.T, expr string, value any) {
	t.Helper()
	b.do(t, "POST", "/execute/sync", map[string]any{"script": "return " + expr, "args": []any{}}, value)
}

// chromium sends a command of Chromium's own.
func (b *browser) chromium(t *testing.T, name string, params map[string]any, value any) {
	t.Helper()
	b.do(t, "POST", "/goog/cdp/execute", map[string]any{"cmd": name, "params": params}, value)
}

// looksLike has pages be seen so wide, and in light or dark.
func (b *browser) looksLike(t *testing.T, width int, scheme string) {
	t.Helper()
	b.chromium(t, "Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	b.chromium(t, "Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// press presses the tabulator, and returns what has the focus then.
func (b *browser) press(t *testing.T) string {
	t.Helper()
	key := func(kind string) map[string]any { return map[string]any{"type": kind, "value": "\ue004"} }
	b.do(t, "POST", "/actions", map[string]any{"actions": []any{map[string]any{
		"type": "key", "id": "keyboard", "actions": []any{key("keyDown"), key("keyUp")}}}}, nil)
	var focused string
	b.eval(t, describeElement("document.activeElement"), &focused)
	return focused
}

// send types text into an element.
func (b *browser) send(t *testing.T, selector, text string) {
	t.Helper()
	var e map[string]string
	b.do(t, "POST", "/element", map[string]any{"using": "css selector", "value": selector}, &e)
	for _, id := range e {
		b.do(t, "POST", "/element/"+id+"/value", map[string]any{"text": text}, nil)
	}
}

// describeElement is an expression that tells elements apart, with whether their
// focus can be seen.
func describeElement(e string) string {
	return fmt.Sprintf(`(e => e.tagName + " " + (e.getAttribute("href") || e.name || e.getAttribute("aria-label") || e.textContent))(%s)`, e)
}

// picture is a page as a whole, as PNG.
func (b *browser) picture(t *testing.T) []byte {
	t.Helper()
	var shot struct{ Data string }
	b.chromium(t, "Page.captureScreenshot", map[string]any{"captureBeyondViewport": true, "format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		t.Fatal(err)
	}
	return png
}

// entries are those of a log since it was asked last.
func (b *browser) entries(t *testing.T, log string) (messages []string) {
	t.Helper()
	var all []struct{ Message string }
	b.do(t, "POST", "/se/log", map[string]any{"type": log}, &all)
	for _, e := range all {
		messages = append(messages, e.Message)
	}
	return messages
}
