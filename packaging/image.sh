#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# image.sh VERSION OUT: makes OUT/gotgtd-VERSION-ARCH.image.tar, a container image as `docker load` and `podman load`
# take it, and as an OCI layout in one. It needs no container engine and no root, and two builds of a
# commit are equal: the image is one layer, and three files of JSON by the OCI image specification (1.1).
# GOARCH=arm64 builds one for another machine. The programs are built in $BIN, if it is set.
set -eu
cd "$(dirname "$0")/.."
version=$1 out=$2
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM # by way of the trap for EXIT
arch=$(go env GOARCH)
epoch=$(git log -1 --format=%ct 2>/dev/null || date +%s)
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)

# The user in the image. Its number is the port's, and is what a disk on a volume belongs to.
user=3260

root=$work/root
mkdir -p "$root/usr/bin" "$root/usr/share/licenses/gotgtd" "$root/etc/gotgtd" \
	"$root/run/gotgtd" "$root/var/lib/gotgtd" "$root/srv/gotgtd"
mkdir -m 1777 "$root/tmp"
bin=${BIN:-$work/bin}
CGO_ENABLED=0 make -s build BIN="$bin" VERSION="$version" LDFLAGS='-s -w' >/dev/null
cp "$bin/gotgtd" "$bin/upgraded" "$root/usr/bin/"
cp LICENSE "$root/usr/share/licenses/gotgtd/"
printf 'root:x:0:0:root:/:/nonexistent\ngotgtd:x:%s:%s:iSCSI target:/var/lib/gotgtd:/nonexistent\n' $user $user >"$root/etc/passwd"
printf 'root:x:0:\ngotgtd:x:%s:\n' $user >"$root/etc/group"
find "$root" -type d ! -name tmp -exec chmod 755 {} +
chmod 644 "$root/etc/passwd" "$root/etc/group" "$root/usr/share/licenses/gotgtd/LICENSE"

# pack FILE FOLDER NAME... [OPTION]...: a tar whose bytes depend on nothing but what is in it.
pack() {
	file=$1 folder=$2
	shift 2
	LC_ALL=C tar --create --file "$file" --directory "$folder" --format=gnu --sort=name --mtime="@$epoch" \
		--numeric-owner --no-acls --no-xattrs --no-selinux "$@"
}
# What is the service's own to write, the rest is root's. A new program is put in the place of
# the old one by who runs the container, not by the service.
pack "$work/layer.tar" "$root" --owner=0 --group=0 --exclude=run/gotgtd --exclude=srv/gotgtd --exclude=var/lib/gotgtd etc run srv tmp usr var
pack "$work/own.tar" "$root" --owner=$user --group=$user run/gotgtd srv/gotgtd var/lib/gotgtd
tar --concatenate --file "$work/layer.tar" "$work/own.tar"
diff_id=$(sha256sum <"$work/layer.tar" | cut -d ' ' -f 1)
gzip -9n "$work/layer.tar"

layout=$work/layout
mkdir -p "$layout/blobs/sha256"
# blob FILE: moves it among the blobs, and sets digest and size.
blob() {
	digest=$(sha256sum <"$1" | cut -d ' ' -f 1)
	size=$(wc -c <"$1")
	mv "$1" "$layout/blobs/sha256/$digest"
}
blob "$work/layer.tar.gz"
layer=$digest layer_size=$size

labels=$(cat <<-END
	{
	      "org.opencontainers.image.title": "gotgtd",
	      "org.opencontainers.image.description": "iSCSI target that is upgraded while initiators use it",
	      "org.opencontainers.image.source": "https://github.com/gotgtd/gotgtd",
	      "org.opencontainers.image.licenses": "Apache-2.0",
	      "org.opencontainers.image.version": "$version",
	      "org.opencontainers.image.created": "$created"
	    }
	END
)
# Healthcheck is Docker's; who reads images as OCI's passes over it.
cat >"$work/config" <<-END
	{
	  "created": "$created",
	  "architecture": "$arch",
	  "os": "linux",
	  "config": {
	    "User": "$user:$user",
	    "ExposedPorts": {"3260/tcp": {}},
	    "Env": ["PATH=/usr/bin", "STATE_DIRECTORY=/var/lib/gotgtd", "XDG_RUNTIME_DIR=/run"],
	    "Entrypoint": ["/usr/bin/upgraded", "run", "--control", "/run/gotgtd/upgraded.sock", "--watchdog", "30s"],
	    "Cmd": ["--listen", "iscsi=:3260", "--", "/usr/bin/gotgtd", "serve", "--config", "/etc/gotgtd/gotgtd.yaml"],
	    "WorkingDir": "/",
	    "Volumes": {"/var/lib/gotgtd": {}},
	    "StopSignal": "SIGTERM",
	    "Healthcheck": {"Test": ["CMD", "/usr/bin/gotgtd", "status"], "Interval": 10000000000, "Timeout": 10000000000, "StartPeriod": 60000000000, "Retries": 3},
	    "Labels": $labels
	  },
	  "rootfs": {"type": "layers", "diff_ids": ["sha256:$diff_id"]},
	  "history": [{"created": "$created", "created_by": "packaging/image.sh"}]
	}
END
blob "$work/config"
config=$digest config_size=$size

cat >"$work/manifest" <<-END
	{
	  "schemaVersion": 2,
	  "mediaType": "application/vnd.oci.image.manifest.v1+json",
	  "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:$config", "size": $config_size},
	  "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:$layer", "size": $layer_size}]
	}
END
blob "$work/manifest"
name=localhost/gotgtd
cat >"$layout/index.json" <<-END
	{
	  "schemaVersion": 2,
	  "mediaType": "application/vnd.oci.image.index.v1+json",
	  "manifests": [{
	    "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:$digest", "size": $size,
	    "platform": {"architecture": "$arch", "os": "linux"},
	    "annotations": {"io.containerd.image.name": "$name:$version", "org.opencontainers.image.ref.name": "$name:$version"}
	  }]
	}
END
printf '{"imageLayoutVersion": "1.0.0"}\n' >"$layout/oci-layout"
# Of docker-archive: older Dockers know nothing else.
cat >"$layout/manifest.json" <<-END
	[{"Config": "blobs/sha256/$config", "RepoTags": ["$name:$version"], "Layers": ["blobs/sha256/$layer"]}]
END
find "$layout" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +

mkdir -p "$out"
rm -f "$out"/gotgtd-*-"$arch".image.tar
image=$out/gotgtd-$version-$arch.image.tar
pack "$image" "$layout" --owner=0 --group=0 oci-layout index.json manifest.json blobs
echo "$image"
