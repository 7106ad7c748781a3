// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/gotgtd/gotgtd/target/config"
)

// The shapes are those parts of the Compose specification and of Kubernetes' API that the examples
// use: another key, and one in another place, is an error.

type composeFile struct {
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]struct{}       `yaml:"volumes"`
}

type composeService struct {
	Image           string         `yaml:"image"`
	Restart         string         `yaml:"restart"`
	NetworkMode     string         `yaml:"network_mode"`
	StopGracePeriod string         `yaml:"stop_grace_period"`
	CapDrop         []string       `yaml:"cap_drop"`
	SecurityOpt     []string       `yaml:"security_opt"`
	Ulimits         map[string]int `yaml:"ulimits"`
	Healthcheck     struct {
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		Retries     int      `yaml:"retries"`
		StartPeriod string   `yaml:"start_period"`
	} `yaml:"healthcheck"`
	Volumes []string `yaml:"volumes"`
}

type metadata struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels"`
}

type secret struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   metadata          `yaml:"metadata"`
	StringData map[string]string `yaml:"stringData"`
}

type service struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       struct {
		ClusterIP string            `yaml:"clusterIP"`
		Selector  map[string]string `yaml:"selector"`
		Ports     []struct {
			Name     string `yaml:"name"`
			Port     int    `yaml:"port"`
			Protocol string `yaml:"protocol"`
		} `yaml:"ports"`
	} `yaml:"spec"`
}

type statefulSet struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       struct {
		ServiceName string `yaml:"serviceName"`
		Replicas    int    `yaml:"replicas"`
		Selector    struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		} `yaml:"selector"`
		Template struct {
			Metadata metadata `yaml:"metadata"`
			Spec     podSpec  `yaml:"spec"`
		} `yaml:"template"`
		VolumeClaimTemplates []struct {
			Metadata metadata `yaml:"metadata"`
			Spec     struct {
				AccessModes []string `yaml:"accessModes"`
				Resources   struct {
					Requests map[string]string `yaml:"requests"`
				} `yaml:"resources"`
			} `yaml:"spec"`
		} `yaml:"volumeClaimTemplates"`
	} `yaml:"spec"`
}

type podSpec struct {
	HostNetwork                   bool              `yaml:"hostNetwork"`
	DNSPolicy                     string            `yaml:"dnsPolicy"`
	NodeSelector                  map[string]string `yaml:"nodeSelector"`
	TerminationGracePeriodSeconds int               `yaml:"terminationGracePeriodSeconds"`
	AutomountServiceAccountToken  bool              `yaml:"automountServiceAccountToken"`
	SecurityContext               struct {
		RunAsNonRoot   bool              `yaml:"runAsNonRoot"`
		RunAsUser      int               `yaml:"runAsUser"`
		RunAsGroup     int               `yaml:"runAsGroup"`
		FSGroup        int               `yaml:"fsGroup"`
		SeccompProfile map[string]string `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []struct {
		Name  string `yaml:"name"`
		Image string `yaml:"image"`
		Ports []struct {
			Name          string `yaml:"name"`
			ContainerPort int    `yaml:"containerPort"`
			HostPort      int    `yaml:"hostPort"`
			Protocol      string `yaml:"protocol"`
		} `yaml:"ports"`
		SecurityContext struct {
			AllowPrivilegeEscalation bool                `yaml:"allowPrivilegeEscalation"`
			Capabilities             map[string][]string `yaml:"capabilities"`
		} `yaml:"securityContext"`
		StartupProbe   probe                        `yaml:"startupProbe"`
		LivenessProbe  probe                        `yaml:"livenessProbe"`
		ReadinessProbe probe                        `yaml:"readinessProbe"`
		Resources      map[string]map[string]string `yaml:"resources"`
		VolumeMounts   []struct {
			Name      string `yaml:"name"`
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	} `yaml:"containers"`
	Volumes []struct {
		Name   string `yaml:"name"`
		Secret struct {
			SecretName  string `yaml:"secretName"`
			DefaultMode int    `yaml:"defaultMode"`
		} `yaml:"secret"`
	} `yaml:"volumes"`
}

type probe struct {
	Exec struct {
		Command []string `yaml:"command"`
	} `yaml:"exec"`
	PeriodSeconds    int `yaml:"periodSeconds"`
	TimeoutSeconds   int `yaml:"timeoutSeconds"`
	FailureThreshold int `yaml:"failureThreshold"`
}

// documents decodes a file's YAML documents, one into each of into.
func documents(t *testing.T, path string, into ...any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	for _, v := range into {
		if err := d.Decode(v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		t.Errorf("%s has more than %d documents: %v, %v", path, len(into), more, err)
	}
}

// image is what packaging/image.sh says of the image.
func image(t *testing.T) (repository, user string) {
	t.Helper()
	text, err := os.ReadFile("../../packaging/image.sh")
	if err != nil {
		t.Fatal(err)
	}
	u := regexp.MustCompile(`(?m)^user=(\d+)$`).FindSubmatch(text)
	r := regexp.MustCompile(`(?m)^name=(\S+)$`).FindSubmatch(text)
	if u == nil || r == nil {
		t.Fatal("packaging/image.sh has no line with user=, or none with name=")
	}
	return string(r[1]), string(u[1])
}

var health = []string{"/usr/bin/gotgtd", "status"}

// TestComposeExample reads the Compose file, and compares it with the image.
func TestComposeExample(t *testing.T) {
	var f composeFile
	documents(t, "../../docs/examples/containers/compose.yaml", &f)
	s, found := f.Services["gotgtd"]
	repository, _ := image(t)
	switch {
	case !found || len(f.Services) != 1:
		t.Fatalf("the services are %v", f.Services)
	case !strings.HasPrefix(s.Image, repository+":"):
		t.Errorf("the image %s is not of %s", s.Image, repository)
	case s.NetworkMode != "host" || s.Restart == "" || !slices.Equal(s.CapDrop, []string{"ALL"}):
		t.Errorf("the service is %+v", s)
	case !slices.Equal(s.Healthcheck.Test, append([]string{"CMD"}, health...)):
		t.Errorf("the health check is %q", s.Healthcheck.Test)
	}
	for _, want := range []string{"/etc/gotgtd", "/var/lib/gotgtd"} {
		if !slices.ContainsFunc(s.Volumes, func(v string) bool {
			source, rest, _ := strings.Cut(v, ":")
			path, _, _ := strings.Cut(rest, ":")
			_, named := f.Volumes[source]
			return path == want && (named || strings.HasPrefix(source, "./"))
		}) {
			t.Errorf("no volume is at %s: %q", want, s.Volumes)
		}
	}
}

// TestKubernetesExample reads the manifests, compares them with the image and with each other, and
// checks the configuration in them.
func TestKubernetesExample(t *testing.T) {
	var (
		conf secret
		svc  service
		set  statefulSet
	)
	documents(t, "../../docs/examples/containers/kubernetes.yaml", &conf, &svc, &set)
	if kinds := conf.APIVersion + " " + conf.Kind + " " + svc.APIVersion + " " + svc.Kind + " " + set.APIVersion + " " + set.Kind; kinds != "v1 Secret v1 Service apps/v1 StatefulSet" {
		t.Errorf("the manifests are %s", kinds)
	}
	if _, err := config.Parse("gotgtd.yaml", []byte(conf.StringData["gotgtd.yaml"])); err != nil {
		t.Error(err)
	}
	pod := set.Spec.Template.Spec
	if len(pod.Containers) != 1 || len(set.Spec.VolumeClaimTemplates) != 1 || len(pod.Volumes) != 1 {
		t.Fatalf("not one container, claim and volume: %+v", set.Spec)
	}
	c, claim, volume := pod.Containers[0], set.Spec.VolumeClaimTemplates[0].Metadata.Name, pod.Volumes[0]
	repository, user := image(t)
	label := set.Spec.Selector.MatchLabels["app"]
	switch ids := pod.SecurityContext; {
	case label == "" || label != set.Spec.Template.Metadata.Labels["app"] || label != svc.Spec.Selector["app"]:
		t.Error("the labels differ")
	case set.Spec.ServiceName != svc.Metadata.Name || volume.Secret.SecretName != conf.Metadata.Name:
		t.Error("a name belongs to nothing")
	case !pod.HostNetwork || set.Spec.Replicas != 1:
		t.Errorf("not one pod in the host's network: %+v", set.Spec)
	case !strings.HasPrefix(c.Image, repository+":"):
		t.Errorf("the image %s is not of %s", c.Image, repository)
	case !slices.Equal([]string{strconv.Itoa(ids.RunAsUser), strconv.Itoa(ids.RunAsGroup), strconv.Itoa(ids.FSGroup)}, []string{user, user, user}):
		t.Errorf("the user is not the image's: %+v", ids)
	case !slices.Equal(c.StartupProbe.Exec.Command, health) || !slices.Equal(c.LivenessProbe.Exec.Command, health) ||
		!slices.Equal(c.ReadinessProbe.Exec.Command, append(slices.Clone(health), "--ready")):
		t.Error("the probes are others")
	case volume.Secret.DefaultMode != 0o440:
		t.Errorf("the configuration has mode %o", volume.Secret.DefaultMode)
	}
	at := map[string]string{}
	for _, m := range c.VolumeMounts {
		at[m.MountPath] = m.Name
	}
	if at["/etc/gotgtd"] != volume.Name || at["/var/lib/gotgtd"] != claim || len(at) != 2 {
		t.Errorf("the volumes are at %v", at)
	}
}
