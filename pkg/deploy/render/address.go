package render

import (
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"

	"github.com/openaperture/openaperture/pkg/deploy/failure"
)

// transport is how git reaches a repository; it is also the value of GIT_ALLOW_PROTOCOL.
type transport string

const (
	overHTTPS transport = "https"
	overSSH   transport = "ssh"
	overFile  transport = "file"
)

// address is a repository that passed every check.
type address struct {
	url       string // as git gets it
	transport transport
	host      string // "" for a local path
	port      string
}

var (
	hostPattern  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
	userPattern  = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	pathPattern  = regexp.MustCompile(`^[A-Za-z0-9._~/+-]{1,512}$`)
	portPattern  = regexp.MustCompile(`^[0-9]{0,5}$`)
	shortPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$`)
	scpPattern   = regexp.MustCompile(`^([^@:/]+)@([^@:/]+):(.+)$`)
	refPattern   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z._/-]{0,199}$`)
	fullCommit   = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

func refused(what, repo string) error {
	return failure.New(failure.GitRefused, "repository %q: %s", shorten(repo), what)
}

// shorten keeps hostile input out of messages: printable ASCII, at most 100 bytes, no userinfo.
func shorten(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	if scheme, rest, ok := strings.Cut(clean, "://"); ok {
		authority, tail, _ := strings.Cut(rest, "/")
		if at := strings.LastIndexByte(authority, '@'); at >= 0 {
			clean = scheme + "://…@" + authority[at+1:] + "/" + tail
		}
	}
	if len(clean) > 100 {
		return clean[:100] + "…"
	}
	return clean
}

// parseAddress accepts https://host/path, ssh://user@host/path, user@host:path, org/repo (which is github.com over
// https, as in the predecessor) and, if local is set, an absolute local path. All else is refused.
func parseAddress(repo string, local bool) (address, error) {
	switch {
	case strings.TrimSpace(repo) == "":
		return address{}, failure.New(failure.RepoInvalid, "the repository is blank")
	case strings.HasPrefix(repo, "/"):
		return parseLocal(repo, local)
	case shortPattern.MatchString(repo):
		return parseURL("https://github.com/" + repo)
	case strings.Contains(repo, "://"):
		return parseURL(repo)
	}
	if m := scpPattern.FindStringSubmatch(repo); m != nil {
		return check(address{url: repo, transport: overSSH, host: m[2]}, m[1], m[3], repo)
	}
	return address{}, refused("neither an https nor an ssh address", repo)
}

func parseLocal(repo string, allowed bool) (address, error) {
	if !allowed {
		return address{}, refused("local paths are not allowed here", repo)
	}
	if !pathPattern.MatchString(repo) || path.Clean(repo) != strings.TrimRight(repo, "/") {
		return address{}, refused("the path is not clean", repo)
	}
	return address{url: repo, transport: overFile}, nil
}

func parseURL(repo string) (address, error) {
	u, err := url.Parse(repo)
	if err != nil {
		return address{}, refused("not a valid address", repo)
	}
	a := address{url: repo, transport: transport(strings.ToLower(u.Scheme)), host: u.Hostname(), port: u.Port()}
	user := "git"
	switch {
	case a.transport != overHTTPS && a.transport != overSSH:
		return a, refused("only https and ssh are allowed", repo)
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || u.Opaque != "" || strings.Contains(repo, "%"):
		return a, refused("an address has no query, fragment or escapes", repo)
	case a.transport == overHTTPS && u.User != nil:
		return a, refused("an address must not carry credentials", repo)
	}
	if u.User != nil {
		user = u.User.String() // a password makes it fail the pattern
	}
	return check(a, user, u.Path, repo)
}

// check holds the rules that all remote forms share.
func check(a address, user, remotePath, repo string) (address, error) {
	switch {
	case !userPattern.MatchString(user):
		return a, refused("the user name is not allowed", repo)
	case !hostPattern.MatchString(a.host) && !literal(a.host), strings.Contains(a.host, ".."), oddNumber(a.host):
		return a, refused("the host is not a plain ASCII name", repo)
	case !portPattern.MatchString(a.port):
		return a, refused("the port is not a number", repo)
	case !pathPattern.MatchString(remotePath) || strings.Trim(remotePath, "/") == "":
		return a, refused("the path contains characters that are not allowed", repo)
	}
	for _, segment := range strings.Split(remotePath, "/") {
		if segment == ".." || strings.HasPrefix(segment, "-") {
			return a, refused("the path contains a forbidden segment", repo)
		}
	}
	return a, nil
}

func literal(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// oddNumber finds hosts such as 0177.0.0.1 or 0x7f000001, which some resolvers read as an address and others do not.
func oddNumber(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last != "" && last[0] >= '0' && last[0] <= '9' && !literal(host)
}

// checkRef refuses what git could read as an option, a range or a path (S4).
func checkRef(ref string) error {
	if strings.TrimSpace(ref) == "" {
		return failure.New(failure.RepoInvalid, "the ref is blank")
	}
	if !refPattern.MatchString(ref) || strings.Contains(ref, "..") || strings.Contains(ref, "@{") ||
		strings.Contains(ref, "//") || strings.HasSuffix(ref, "/") || strings.HasSuffix(ref, ".") || lockComponent(ref) {
		return failure.New(failure.GitRefused, "ref %q is not allowed", shorten(ref))
	}
	return nil
}

func lockComponent(ref string) bool {
	for _, part := range strings.Split(ref, "/") {
		if strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return true
		}
	}
	return false
}

// public tells whether an address of a host may be contacted without the operator naming the host.
func public(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsValid() && ip.IsGlobalUnicast() && !ip.IsPrivate() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() &&
		!carrierGrade.Contains(ip)
}

var carrierGrade = netip.MustParsePrefix("100.64.0.0/10")
