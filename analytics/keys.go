package analytics

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/internal/diskio"
)

// key is a secret under which identities are hashed.
type key struct {
	id     string // names it where its hashes are kept; says nothing about it
	secret []byte
}

// keyring is one key, or while they are rotated two: the first is the new one.
type keyring []key

const (
	minKeyBytes = 16
	maxKeys     = 2
	maxKeyFile  = 64 << 10
	keyFileName = "key"
)

// mac returns the HMAC-SHA-256 of the parts, told apart by their lengths.
func (k key) mac(parts ...string) []byte {
	m := hmac.New(sha256.New, k.secret)
	for _, part := range parts {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(part)))
		m.Write(length[:])
		io.WriteString(m, part)
	}
	return m.Sum(nil)
}

// sip returns the key for sketches of one type of identity. It is the same for all
// events, so that their sketches can be united.
func (k key) sip(identityType string) sipKey {
	sum := k.mac("sketch", identityType)
	return sipKey{binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:])}
}

// pseudonym returns what is written in the place of an identity: 128 bits of an
// HMAC-SHA-256 of its type and canonical value, in base64url without padding.
func (k key) pseudonym(identityType string, canonical []byte) string {
	return base64.RawURLEncoding.EncodeToString(k.mac("pseudonym", identityType, string(canonical))[:16])
}

// pseudonyms returns a func that does what pseudonym does, for one goroutine. It
// remembers some, since an organization has many users, and a user many events.
func (k key) pseudonyms() plan.Pseudonym {
	const remembered, longest = 4096, 32
	type entry struct {
		identityType string
		canonical    [longest]byte
		length       uint8 // of canonical; 0: there is none
		text         [22]byte
	}
	m := hmac.New(sha256.New, k.secret)
	entries := new([remembered]entry)
	seed := maphash.MakeSeed()
	var scratch, sum []byte
	part := func(text string) {
		scratch = append(binary.BigEndian.AppendUint32(scratch, uint32(len(text))), text...)
	}
	return func(dst []byte, identityType string, canonical []byte) []byte {
		e := &entries[maphash.Bytes(seed, canonical)%remembered]
		if e.length > 0 && string(e.canonical[:e.length]) == string(canonical) && e.identityType == identityType {
			return append(dst, e.text[:]...)
		}
		scratch = scratch[:0]
		part("pseudonym")
		part(identityType)
		scratch = append(binary.BigEndian.AppendUint32(scratch, uint32(len(canonical))), canonical...)
		m.Reset()
		m.Write(scratch)
		sum = m.Sum(sum[:0])
		dst = base64.RawURLEncoding.AppendEncode(dst, sum[:16])
		if len(canonical) > 0 && len(canonical) <= longest {
			e.identityType, e.length = identityType, uint8(copy(e.canonical[:], canonical))
			copy(e.text[:], dst[len(dst)-len(e.text):])
		}
		return dst
	}
}

// openKeys returns the keys of the configuration: those of key_file, else of keys, else
// one that is made at the first start and kept in the state folder.
func openKeys(cfg Config) (keyring, error) {
	switch {
	case cfg.KeyFile != "":
		file, err := os.Open(cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("analytics.key_file: %w", err)
		}
		defer file.Close()
		ring, err := readKeys(io.LimitReader(file, maxKeyFile))
		if err != nil {
			return nil, fmt.Errorf("analytics.key_file: %s: %w", cfg.KeyFile, err)
		}
		return ring, nil
	case cfg.Keys.Reveal() != "":
		return parseKeys(cfg.Keys.Reveal())
	}
	return ownKey(filepath.Join(cfg.StateDir, keyFileName))
}

func parseKeys(text string) (keyring, error) {
	ring, err := readKeys(strings.NewReader(strings.ReplaceAll(text, ",", "\n")))
	if err != nil {
		return nil, fmt.Errorf("analytics.keys: %w", err)
	}
	return ring, nil
}

var errNoKey = errors.New("there is no key in it; write one a line, as 32 or more hexadecimal digits or in base64, with ID= before it if you like")

// readKeys reads keys, one a line, the newest first: a secret, or ID=SECRET.
func readKeys(r io.Reader) (keyring, error) {
	var ring keyring
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(ring)+1, err)
		}
		for _, other := range ring {
			if other.id == k.id {
				return nil, fmt.Errorf("two keys have the id %s; give each its own", k.id)
			}
		}
		ring = append(ring, k)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(ring) == 0 {
		return nil, errNoKey
	}
	if len(ring) > maxKeys {
		return nil, fmt.Errorf("there are %d keys; keep %d at most, the new one first", len(ring), maxKeys)
	}
	return ring, nil
}

func parseKey(line string) (key, error) {
	const longestID = 32
	var k key
	text := line
	if id, rest, found := strings.Cut(line, "="); found && rest != "" && strings.Trim(rest, "=") != "" {
		k.id, text = id, rest
		if id == "" || len(id) > longestID || strings.ContainsFunc(id, func(r rune) bool { return !isNameRune(r) }) {
			return k, fmt.Errorf("an id is 1 to %d letters, digits, '-' and '_'", longestID)
		}
	}
	secret, err := hex.DecodeString(text)
	if err != nil {
		secret, err = base64.RawStdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "/", "=", "").Replace(text))
	}
	if err != nil || len(secret) < minKeyBytes {
		return k, fmt.Errorf("it is no secret of %d bytes or more; make one with: openssl rand -hex 32", minKeyBytes)
	}
	k.secret = secret
	if k.id == "" {
		k.id = hex.EncodeToString(k.mac("id")[:4])
	}
	return k, nil
}

func isNameRune(r rune) bool {
	return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// ownKey reads the agent's own key, and makes it if there is none.
func ownKey(path string) (keyring, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		var secret [32]byte
		_, _ = rand.Read(secret[:]) // never fails: crypto/rand crashes the program instead
		if err := diskio.WriteFile(path, []byte(hex.EncodeToString(secret[:])+"\n")); err != nil {
			return nil, fmt.Errorf("make a key for analytics: %w", err)
		}
		file, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read the key for analytics: %w", err)
	}
	defer file.Close()
	ring, err := readKeys(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w; if it is lost for good, remove the file: unique counts begin anew", path, err)
	}
	return ring, nil
}
