package api

// registerUpgradeRoutes registers the new resources.
func registerUpgradeRoutes(s *Server) {}
