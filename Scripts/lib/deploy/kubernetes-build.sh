#!/usr/bin/env bash
# Builds a Kubernetes control plane and node (1.20) from Debian bookworm's source package into DIRECTORY/bin: some six
# minutes and 4 GB, once. Needs golang-go, dpkg-dev and Debian's archive; installs nothing.
#   kubernetes-build.sh DIRECTORY
set -euo pipefail
DIRECTORY=$(realpath -- "${1:?a directory}")
VERSION=1.20.2
export GOPATH=$DIRECTORY/gopath GO111MODULE=off GOCACHE=$DIRECTORY/gocache CGO_ENABLED=0
unset GOFLAGS

# Lists of its own: the machine's sources stay as they are.
fetch() {
  local archive lists=$DIRECTORY/lists
  archive=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources)
  mkdir -p "$lists/partial" "$DIRECTORY/source"
  printf 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s bookworm main\n' "$archive" >"$DIRECTORY/source.list"
  local options=(-o "Dir::Etc::SourceList=$DIRECTORY/source.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$lists"
    -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$DIRECTORY/source" && apt-get "${options[@]}" source --only-source --download-only kubernetes)
}

# GOPATH mode: the vendored modules do not agree with go.mod.
unpack() {
  mkdir -p "$GOPATH/src/k8s.io"
  tar -xzf "$DIRECTORY"/source/kubernetes_*.orig.tar.gz -C "$GOPATH/src/k8s.io"
  mv "$GOPATH/src/k8s.io/kubernetes-$VERSION" "$GOPATH/src/k8s.io/kubernetes"
}

# The API server cannot be compiled without its own description, which is not in the package.
generate() {
  local packages
  go build -o "$DIRECTORY/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=true' staging/src/k8s.io pkg | xargs -n1 dirname | sort -u |
    grep -vE 'testdata|/_examples|code-generator|sample-' |
    sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^pkg/#k8s.io/kubernetes/pkg/#' | paste -sd,)
  "$DIRECTORY/openapi-gen" -h hack/boilerplate/boilerplate.generatego.txt -O zz_generated.openapi \
    -p k8s.io/kubernetes/pkg/generated/openapi -i "$packages" -r "$DIRECTORY/violations.txt"
}

[[ -d $DIRECTORY/gopath/src/k8s.io/kubernetes ]] || { fetch; unpack; }
cd "$GOPATH/src/k8s.io/kubernetes"
compgen -G 'pkg/generated/openapi/zz_generated.openapi.go' >/dev/null || generate
set_version=''
for package in vendor/k8s.io/component-base vendor/k8s.io/client-go/pkg; do
  set_version+=" -X k8s.io/kubernetes/$package/version.gitVersion=v$VERSION"
done
set_version+=" -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitMajor=1"
set_version+=" -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitMinor=20"
mkdir -p "$DIRECTORY/bin"
for program in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
  go build -p 2 -trimpath -ldflags "-s -w$set_version" -o "$DIRECTORY/bin/$program.new" "./cmd/$program"
  mv "$DIRECTORY/bin/$program.new" "$DIRECTORY/bin/$program"
done
rm -rf -- "$GOPATH" "$GOCACHE" "$DIRECTORY"/{source,lists,openapi-gen,violations.txt,source.list}
