package host

import (
	"go.uber.org/zap"

	"github.com/openaperture/openaperture/pkg/unit"
	"github.com/openaperture/openaperture/services/unitd/internal/service"
)

// parser gives options their meaning, as service.Parse does.
type parser func(name unit.Name, host string, options []unit.Option) (service.Service, error)

// definition is what a record's options come to on this host.
type definition struct {
	generation string
	candidate  unit.Placeable
	service    service.Service
	err        error // this unitd cannot read the options
}

// definition reads the options of a record, once per generation; h.mu is held.
// Options that a newer unitd has stored, or that make the reading panic, are an
// error of this unit alone: what runs of it is left as it is.
func (h *Host) definition(r record) definition {
	if d, ok := h.definitions[r.Name]; ok && d.generation == r.Generation {
		return d
	}
	d := definition{generation: r.Generation}
	d.err = h.cfg.Contain("definition", "unit "+r.Name, func() error {
		name, err := parseName(r.Name)
		if err != nil {
			return err
		}
		d.candidate = unit.NewPlaceable(name, r.Options)
		d.service, err = h.cfg.parse(name, h.cfg.Hostname, r.Options)
		return err
	})
	if d.err != nil {
		h.cfg.Log.Error("stored unit cannot be read: what runs of it is left alone, nothing is started",
			zap.String("unit", r.Name), zap.Error(d.err))
	}
	h.definitions[r.Name] = d
	return d
}
