package stack

import "context"

// StartHello runs unitd and hello in it, without any server and any service of OpenAperture.
func (s *Stack) StartHello(ctx context.Context) error {
	if err := s.BuildHello(ctx, First); err != nil {
		return err
	}
	if err := s.startUnitd(ctx); err != nil {
		return err
	}
	return s.launch(ctx, Hello)
}

// UpgradeHello gives unitd a release of hello, as an executor does.
func (s *Stack) UpgradeHello(ctx context.Context, ref string) error {
	if err := s.BuildHello(ctx, ref); err != nil {
		return err
	}
	rendered, err := s.render(ctx, Hello, ref)
	if err != nil {
		return err
	}
	for i := 1; i <= Hello.Instances; i++ {
		if err := s.Put(ctx, Hello.Unit(i), rendered.Units[0].Options); err != nil {
			return err
		}
	}
	return nil
}

// Deactivate sets a unit inactive, as an interrupted Down does.
func (s *Stack) Deactivate(ctx context.Context, name string) error {
	return s.change(ctx, name, map[string]any{"desiredState": "inactive"})
}

// ChoosePorts chooses all ports of the stack anew.
func (s *Stack) ChoosePorts(ctx context.Context) error { return s.choosePorts(ctx) }

// Configure writes secrets and configurations.
func (s *Stack) Configure() error { return s.configure() }

// UnitText is the template of a service's unit.
func (s *Stack) UnitText(v Service) string { return s.template(v) }

// StartLinks starts the process that holds the links.
func (s *Stack) StartLinks(ctx context.Context) error { return s.startLinks(ctx) }

// StartServers starts both servers.
func (s *Stack) StartServers(ctx context.Context) error {
	if err := s.Postgres.Start(ctx); err != nil {
		return err
	}
	return s.RabbitMQ.Start(ctx)
}
