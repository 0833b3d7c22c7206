package api

import (
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/openaperture/openaperture/pkg/fault"
	"github.com/openaperture/openaperture/pkg/postgres"
	"github.com/openaperture/openaperture/services/manager-api/internal/registry"
)

const clusterItem = "EtcdCluster"

func (s *Server) registerClusters() {
	s.family("GET /clusters", clusterItem, Readers, s.listClusters)
	s.once("POST /clusters", clusterItem, Admins, s.createCluster)
	s.family("GET /clusters/{etcd_token}", clusterItem, Readers, s.showCluster)
	s.family("PUT /clusters/{etcd_token}", clusterItem, Admins, s.updateCluster)
	s.family("DELETE /clusters/{etcd_token}", clusterItem, Admins, s.deleteCluster)
}

func (s *Server) listClusters(w http.ResponseWriter, r *http.Request) error {
	p, err := partOf(r, clusterItem)
	if err != nil {
		return err
	}
	var builds *bool
	if yes := true; r.URL.Query().Get("allow_docker_builds") == "true" { // only this literal filters
		builds = &yes
	}
	return stream(w, func(emit func(registry.ClusterRow) error) error {
		return s.Registry.EachCluster(r.Context(), p, builds, emit)
	})
}

// cluster reads the cluster of a request; a bound caller sees those of its exchange.
func (s *Server) cluster(r *http.Request) (registry.ClusterRow, error) {
	row, err := s.Registry.Cluster(r.Context(), r.PathValue("etcd_token"))
	if err != nil {
		return row, err
	}
	if bound := callerOf(r.Context()).ExchangeID; bound != 0 && (row.ExchangeID == nil || *row.ExchangeID != bound) {
		return row, fault.New(fault.NotFound, "no such cluster")
	}
	return row, nil
}

func (s *Server) showCluster(w http.ResponseWriter, r *http.Request) error {
	row, err := s.cluster(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, row)
	return nil
}

func (s *Server) createCluster(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(r)
	if err != nil {
		return err
	}
	spec := registry.ClusterSpec{Runtime: "fleet"}
	readCluster(f, &spec)
	token := f.need("etcd_token")
	if err := f.err(clusterItem); err != nil {
		return err
	}
	id, err := s.Registry.CreateCluster(r.Context(), token, spec)
	if err != nil {
		return namedDuplicate(err, clusterItem)
	}
	w.Header().Set("Location", "/clusters/"+token)
	writeJSON(w, http.StatusCreated, "Registered id "+strconv.FormatInt(id, 10))
	return nil
}

// namedDuplicate gives a Conflict over a key the item's text.
func namedDuplicate(err error, item string) error {
	if fault.CodeOf(err) == postgres.CodeDuplicate {
		return alreadyExists(item)
	}
	return err
}

// readCluster changes what is given: null clears, what is absent stays.
func readCluster(f *form, spec *registry.ClusterSpec) {
	if f.has("name") {
		spec.Name = f.text("name")
		if spec.Name != nil && (*spec.Name == "" || utf8.RuneCountInString(*spec.Name) > 255) {
			f.before("name", "should be 1 to 255 characters")
		}
	}
	if f.has("hosting_provider_id") {
		spec.HostingProviderID = f.integer("hosting_provider_id")
	}
	if f.has("allow_docker_builds") {
		spec.AllowDockerBuilds = f.boolean("allow_docker_builds")
	}
	if f.has("messaging_exchange_id") {
		spec.ExchangeID = exchangeID(f.integer("messaging_exchange_id"))
	}
	if runtime := f.text("runtime"); runtime != nil {
		spec.Runtime = *runtime
		if *runtime != "fleet" && *runtime != "docker" {
			f.bad("runtime", invalid)
		}
	}
	if endpoint := f.text("endpoint"); endpoint != nil {
		spec.Endpoint = *endpoint
		if !endpointForm(*endpoint) {
			f.bad("endpoint", "is no URL without credentials")
		}
	}
}

// endpointForm accepts the URL of a runtime, or nothing. Whatever is stored is shown, so it holds no credentials.
func endpointForm(text string) bool {
	if text == "" {
		return true
	}
	u, err := url.Parse(text)
	if err != nil || u.User != nil {
		return false
	}
	switch u.Scheme {
	case "http", "https", "tcp":
		return u.Host != ""
	case "unix":
		return u.Path != ""
	default:
		return false
	}
}

func (s *Server) updateCluster(w http.ResponseWriter, r *http.Request) error {
	row, err := s.cluster(r)
	if err != nil {
		return err
	}
	f, err := readForm(r)
	if err != nil {
		return err
	}
	err = s.Registry.UpdateCluster(r.Context(), row.EtcdToken, func(spec *registry.ClusterSpec) error {
		fresh := form{params: f.params} // a transaction may run twice
		readCluster(&fresh, spec)
		return fresh.err(clusterItem)
	})
	if err != nil {
		return err
	}
	answerLocation(w, http.StatusNoContent, "/clusters/"+row.EtcdToken)
	return nil
}

func (s *Server) deleteCluster(w http.ResponseWriter, r *http.Request) error {
	row, err := s.cluster(r)
	if err != nil {
		return err
	}
	if err := s.Registry.DeleteCluster(r.Context(), row.EtcdToken); err != nil {
		return err
	}
	noContent(w, http.StatusNoContent)
	return nil
}
