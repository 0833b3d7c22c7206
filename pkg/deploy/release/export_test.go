package release

// Environment is what git sees for an https address.
func Environment(g *Git) []string { return g.environment(address{transport: overHTTPS}) }
