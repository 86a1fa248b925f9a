package config

import (
	"cmp"
	"fmt"
	"iter"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/internal/spelling"
	"github.com/weir-agent/weir/metric"
)

var (
	rootSchema      = schemaOf(reflect.TypeFor[Config]())
	destinationType = reflect.TypeFor[forwarder.DestinationConfig]()
)

// delimiter separates the parts of a key for viper. It is no dot, so that a dot
// in a key is nothing special.
const delimiter = "::"

const envPrefix = "WEIR_"

// envName returns the environment variable of a key: WEIR_LISTEN_UDP for
// listen.udp.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// Load reads the configuration from the named file ("" for none) and the
// environment, which goes before the file: first the variables WEIR_*, then those
// that are set for the Datadog Agent. The error is Faults if the configuration
// can be read but not used. Warnings are worth telling but no reason to stop.
func Load(name string) (cfg Config, warnings []string, err error) {
	file, err := readFile(name, rootSchema)
	if err != nil {
		return cfg, nil, err
	}
	faults := file.faults
	env, envFaults := readEnvironment()
	faults = append(faults, envFaults...)

	cfg, err = merge(file, env)
	if err != nil {
		return cfg, nil, err
	}
	if cfg.Aggregator.Hostname == "" {
		cfg.Aggregator.Hostname, err = os.Hostname()
		if err != nil {
			faults = append(faults, Fault{Key: "hostname", Message: fmt.Sprintf("this machine has no name (%v); set it", err)})
		}
	}
	env.resolve(&cfg.Forwarder)
	cfg.connect()
	for _, err := range cfg.faults() {
		if fault := place(err, file, env); !faults.cover(err) {
			faults = append(faults, fault)
		}
	}
	if len(faults) > 0 {
		slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
		return cfg, nil, faults
	}
	return cfg, unknownVariables(), nil
}

// cover reports whether a fault of a room's Validate only follows from one that is
// known: its key, or what it is part of, or a key it is compared with, was not
// read.
func (f Faults) cover(err error) bool {
	key, _, _ := strings.Cut(err.Error(), ": ")
	for _, known := range f {
		at, of := known.Key, key
		if variable, ok := strings.CutPrefix(at, envPrefix); ok {
			at, of = strings.ToLower(variable), strings.ReplaceAll(key, ".", "_")
		}
		if of == at || strings.HasPrefix(of, at+".") || strings.HasPrefix(of, at+"[") ||
			at == "flush_interval" && strings.HasPrefix(of, "expiry") {
			return true
		}
	}
	return false
}

// merge puts defaults, file and environment on top of each other.
func merge(f *file, env *environment) (Config, error) {
	cfg := Default()
	v := viper.NewWithOptions(viper.KeyDelimiter(delimiter))
	if err := v.MergeConfigMap(f.settings()); err != nil {
		return cfg, fmt.Errorf("read the configuration: %w", err)
	}
	env.adjustListener(v)
	for path, value := range env.values {
		v.Set(strings.ReplaceAll(path, ".", delimiter), value)
	}
	err := v.UnmarshalExact(&cfg, func(d *mapstructure.DecoderConfig) {
		d.TagName = "yaml"
		d.ZeroFields = true // a list replaces the default list instead of its first items
		d.DecodeHook = mapstructure.ComposeDecodeHookFunc(decodeDuration, decodeBytes, decodeInt)
	})
	if err != nil {
		return cfg, fmt.Errorf("BUG: the configuration was checked and cannot be decoded: %w", err)
	}
	return cfg, nil
}

func decodeDuration(from, to reflect.Type, value any) (any, error) {
	if to != durationType || from == durationType {
		return value, nil
	}
	return parseDuration(fmt.Sprint(value))
}

func decodeBytes(_, to reflect.Type, value any) (any, error) {
	if to != bytesType {
		return value, nil
	}
	return metric.ParseBytes(fmt.Sprint(value))
}

// decodeInt reads decimals, as schema.check does; mapstructure would take 010 for
// eight.
func decodeInt(from, to reflect.Type, value any) (any, error) {
	if to.Kind() != reflect.Int || from.Kind() != reflect.String {
		return value, nil
	}
	return strconv.Atoi(value.(string))
}

// place finds the line or the variable that an error of a room's Validate is
// about. Such an error begins with the key.
func place(err error, f *file, env *environment) Fault {
	key, message, _ := strings.Cut(err.Error(), ": ")
	fault := Fault{Key: key, Message: message}
	// The key itself, or what it is part of. A variable hides what the file says.
	for at := range ancestors(key) {
		if name, set := env.names[at]; set {
			fault.Key = name + strings.TrimPrefix(key, at)
			return fault
		}
	}
	for at := range ancestors(key) {
		if line, known := f.lines[at]; known {
			fault.File, fault.Line = f.name, line
			return fault
		}
	}
	return fault
}

// ancestors yields a path and all it is part of: a[0].b, a[0], a.
func ancestors(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for yield(path) {
			i := strings.LastIndexAny(path, ".[")
			if i < 0 {
				return
			}
			path = path[:i]
		}
	}
}

// environment is what the environment says.
type environment struct {
	values       map[string]any    // by path
	names        map[string]string // of the variable a value came from, by path
	destinations forwarder.Defaults
	bindHost     string
	port         string
	nonLocal     bool
}

// resolve lets the forwarders fill in what they leave open, and remembers which
// variable filled it in.
func (env *environment) resolve(cfg *forwarder.Config) {
	before := slices.Clone(cfg.Forwarders)
	cfg.Resolve(env.destinations)
	for i, f := range cfg.Forwarders {
		var was forwarder.DestinationConfig
		if i < len(before) {
			was = before[i]
		}
		for _, field := range []struct{ key, was, is, from, name string }{
			{"api_key", was.APIKey.Reveal(), f.APIKey.Reveal(), env.destinations.APIKey.Reveal(), "DD_API_KEY"},
			{"site", was.Site, f.Site, env.destinations.Site, "DD_SITE"},
			{"url", was.URL, f.URL, env.destinations.URL, "DD_URL"},
		} {
			if field.was == "" && field.is != "" && field.is == field.from {
				env.names[fmt.Sprintf("forwarders[%d].%s", i, field.key)] = field.name
			}
		}
	}
}

// readEnvironment reads all variables that are settings.
func readEnvironment() (*environment, Faults) {
	env := &environment{values: map[string]any{}, names: map[string]string{}}
	var faults Faults
	rootSchema.leaf("", func(path string, s *schema) {
		name := envName(path)
		text, set := os.LookupEnv(name)
		if !set {
			return
		}
		value, wrong := parseVariable(text, s)
		if wrong != "" {
			faults = append(faults, Fault{Key: name, Message: wrong})
			return
		}
		env.values[path], env.names[path] = value, name
	})
	fallback := func(path, name string, value any) {
		if _, set := env.values[path]; !set {
			env.values[path], env.names[path] = value, name
		}
	}
	if text := os.Getenv("DD_HOSTNAME"); text != "" {
		fallback("hostname", "DD_HOSTNAME", text)
	}
	if text := os.Getenv("DD_TAGS"); text != "" {
		fallback("tags", "DD_TAGS", splitWords(text))
	}
	if path := os.Getenv("DD_DOGSTATSD_SOCKET"); path != "" {
		fallback("listen.unix_datagram", "DD_DOGSTATSD_SOCKET", path)
	}
	if path := os.Getenv("DD_DOGSTATSD_STREAM_SOCKET"); path != "" {
		fallback("listen.unix_stream", "DD_DOGSTATSD_STREAM_SOCKET", path)
	}
	env.destinations = forwarder.Defaults{
		APIKey: metric.Secret(strings.TrimSpace(os.Getenv("DD_API_KEY"))),
		Site:   os.Getenv("DD_SITE"),
		URL:    cmp.Or(os.Getenv("DD_URL"), os.Getenv("DD_DD_URL")),
	}
	if _, set := env.values["listen.udp"]; !set {
		env.bindHost, env.port = os.Getenv("DD_BIND_HOST"), os.Getenv("DD_DOGSTATSD_PORT")
		if text := os.Getenv("DD_DOGSTATSD_NON_LOCAL_TRAFFIC"); text != "" {
			var err error
			if env.nonLocal, err = strconv.ParseBool(text); err != nil {
				faults = append(faults, Fault{Key: "DD_DOGSTATSD_NON_LOCAL_TRAFFIC", Message: fmt.Sprintf("%q is not true or false", text)})
			}
		}
	}
	return env, faults
}

// parseVariable reads the value of an environment variable: text for a scalar,
// words for a list of them, YAML for a list of mappings.
func parseVariable(text string, s *schema) (value any, wrong string) {
	if s.item == nil {
		return text, s.check(text)
	}
	if s.item.of == nil && !strings.HasPrefix(strings.TrimSpace(text), "[") {
		words := splitWords(text)
		for _, word := range words {
			if wrong := s.item.check(word); wrong != "" {
				return nil, wrong
			}
		}
		return words, ""
	}
	checked := file{lines: map[string]int{}}
	checked.parse([]byte(text), s)
	if len(checked.faults) > 0 {
		messages := make([]string, len(checked.faults))
		for i, fault := range checked.faults {
			messages[i] = Fault{Key: fault.Key, Message: fault.Message}.String()
		}
		return nil, strings.Join(messages, "; and ")
	}
	if checked.root == nil {
		return []any{}, ""
	}
	return plain(checked.root), ""
}

// splitWords splits at commas and white space, as the Datadog Agent splits
// DD_TAGS.
func splitWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
}

// adjustListener applies the Datadog Agent's variables for host and port to the
// address that the file or the default gives.
func (env *environment) adjustListener(v *viper.Viper) {
	const path = "listen.udp"
	if env.bindHost == "" && env.port == "" && !env.nonLocal {
		return
	}
	address := Default().Listen.UDP
	const key = "listen" + delimiter + "udp"
	if set := v.GetString(key); set != "" {
		address = set
	} else if v.IsSet(key) && env.port == "" {
		return // closed, whatever the host
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return // a fault, and reported as one
	}
	name := "DD_DOGSTATSD_PORT"
	if env.bindHost != "" {
		host, name = env.bindHost, "DD_BIND_HOST"
	}
	if env.nonLocal {
		host, name = "0.0.0.0", "DD_DOGSTATSD_NON_LOCAL_TRAFFIC"
	}
	if env.port != "" {
		port, name = env.port, "DD_DOGSTATSD_PORT"
	}
	address = net.JoinHostPort(host, port)
	if port == "0" && env.port != "" { // to the Datadog Agent, no UDP at all
		address = ""
	}
	env.values[path], env.names[path] = address, name
}

// unknownVariables returns a warning for each variable that looks like a setting
// and is none. They are no faults: Kubernetes makes some for a service that is
// called weir.
func unknownVariables() (warnings []string) {
	known := map[string]bool{}
	var names []string
	rootSchema.leaf("", func(path string, _ *schema) {
		known[envName(path)] = true
		names = append(names, envName(path))
	})
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || known[name] || madeByKubernetes(name) {
			continue
		}
		warning := "the environment variable " + name + " is no setting"
		lower := make([]string, len(names))
		for i := range names {
			lower[i] = strings.ToLower(names[i])
		}
		if near := spelling.Nearest(name, lower); near != "" {
			warning += "; did you mean " + strings.ToUpper(near) + "?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}

// madeByKubernetes reports whether a name is one of those that Kubernetes sets
// for a service: WEIR_SERVICE_HOST, WEIR_PORT_8125_UDP_ADDR and so on.
func madeByKubernetes(name string) bool {
	return strings.HasPrefix(name, envPrefix+"SERVICE_") || name == envPrefix+"PORT" || strings.HasPrefix(name, envPrefix+"PORT_")
}
