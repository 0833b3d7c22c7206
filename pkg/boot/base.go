package boot

import (
	"fmt"
	"net"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config is the configuration of a service: a struct with mapstructure tags that
// embeds Base with `mapstructure:",squash"`.
type Config interface {
	// Validate checks values and their relations; its error is one line that names
	// the key. Base is validated besides.
	Validate() error
	// CheckSecrets reads the secrets and checks them, wherever they stand. It is asked before serving and by
	// --check-config only: who asks for the health of a service may not read them, and a file that is just being replaced
	// is no illness.
	CheckSecrets() error
	// BaseConfig comes with the embedded Base.
	BaseConfig() Base
}

// Base holds the keys that every service has.
type Base struct {
	// Listen is the address of the health, metrics and service routes. Loopback
	// by default: whoever opens it to a network says so.
	Listen string `mapstructure:"listen"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `mapstructure:"log_level"`
	// LogFormat is json or console.
	LogFormat string `mapstructure:"log_format"`
	// ShutdownTimeout bounds a graceful stop, at most 30 s.
	ShutdownTimeout time.Duration `mapstructure:"shutdown_timeout"`
}

const maxShutdown = 30 * time.Second

// DefaultBase is the usual Base with the service's own loopback address.
func DefaultBase(listen string) Base {
	return Base{Listen: listen, LogLevel: "info", LogFormat: "json", ShutdownTimeout: 25 * time.Second}
}

// BaseConfig is the Base itself, for Config.
func (b Base) BaseConfig() Base { return b }

// Validate checks the shared keys. A service that has nothing else to check
// inherits it.
func (b Base) Validate() error {
	if _, _, err := net.SplitHostPort(b.Listen); err != nil {
		return fmt.Errorf("listen %q: want host:port", b.Listen)
	}
	if _, err := zapcore.ParseLevel(b.LogLevel); err != nil {
		return fmt.Errorf("log_level %q: want debug, info, warn or error", b.LogLevel)
	}
	if b.LogFormat != "json" && b.LogFormat != "console" {
		return fmt.Errorf("log_format %q: want json or console", b.LogFormat)
	}
	if b.ShutdownTimeout <= 0 || b.ShutdownTimeout > maxShutdown {
		return fmt.Errorf("shutdown_timeout %s: want more than 0s and at most %s", b.ShutdownTimeout, maxShutdown)
	}
	return nil
}

// localURL is how the process itself reaches its listener.
func (b Base) localURL(path string) string {
	host, port, _ := net.SplitHostPort(b.Listen)
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port) + path
}

// newLogger writes to stderr, or to w in specs. The level and format were validated.
func newLogger(b Base, w zapcore.WriteSyncer) *zap.Logger {
	level, _ := zapcore.ParseLevel(strings.ToLower(b.LogLevel))
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(cfg)
	if b.LogFormat == "console" {
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(cfg)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(w), level))
}
