# shellcheck shell=bash
# A Kubernetes of one node on the private engine, in its network: etcd, the API server, controllers, scheduler, kubelet
# (Docker behind it) and kube-proxy, with names and volumes by node.py. Needs common.sh, engine.sh, offices.sh; root.
#
#   node_up DIRECTORY PROGRAMS     kube COMMAND...: kubectl there
#   node_down                      ends it all; nothing stays mounted

NODE_ADDRESS=172.30.0.1 # the engine's bridge: pods reach the name server there, the API server the kubelet
NODE_PORTS=(22379 22380 26443)

kube() { inside kubectl --kubeconfig "$NODE/kubeconfig" "$@"; }

node_up() {
  NODE=$1 PROGRAMS=$2
  mkdir -p "$NODE"/{run,pki,volumes}
  (umask 077 && random_word >"$NODE/token")
  # Where kubelet puts a socket whatever it is told; it goes unless it was there.
  [[ -e /var/lib/kubelet ]] || on_exit rm -rf -- /var/lib/kubelet
  on_exit node_down
  node_forget_pods
  node_certificates
  node_settings
  node_pause_image >/dev/null 2>&1
  local store=http://127.0.0.1:${NODE_PORTS[0]} peer=http://127.0.0.1:${NODE_PORTS[1]}
  node_start etcd --data-dir "$NODE/etcd" --listen-client-urls "$store" --advertise-client-urls "$store" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer"
  node_start kube-apiserver --etcd-servers="$store" --bind-address=127.0.0.1 --advertise-address=127.0.0.1 \
    --secure-port="${NODE_PORTS[2]}" --cert-dir="$NODE/pki/own" --tls-cert-file="$NODE/pki/server.pem" \
    --tls-private-key-file="$NODE/pki/server.key" --client-ca-file="$NODE/pki/ca.pem" --token-auth-file="$NODE/tokens" \
    --authorization-mode=RBAC --service-cluster-ip-range=172.29.0.0/24 --service-account-issuer=https://hub.test \
    --service-account-key-file="$NODE/pki/accounts.key" --service-account-signing-key-file="$NODE/pki/accounts.key" \
    --enable-admission-plugins=NodeRestriction --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$NODE/pki/client.pem" --kubelet-client-key="$NODE/pki/client.key" \
    --endpoint-reconciler-type=none
  until_true 60 "the API server is ready" kube get --raw /readyz || node_fails kube-apiserver
  node_start kube-controller-manager --kubeconfig="$NODE/kubeconfig" --bind-address=127.0.0.1 --port=0 --leader-elect=false \
    --service-account-private-key-file="$NODE/pki/accounts.key" --root-ca-file="$NODE/pki/ca.pem"
  node_start kube-scheduler --kubeconfig="$NODE/kubeconfig" --bind-address=127.0.0.1 --port=0 --leader-elect=false
  node_start kubelet --kubeconfig="$NODE/kubeconfig" --config="$NODE/kubelet.yaml" --root-dir="$NODE/kubelet" \
    --cert-dir="$NODE/pki/kubelet" --container-runtime=docker --docker-endpoint="$DOCKER_HOST" \
    --docker-root="$ENGINE/data" --experimental-dockershim-root-directory="$NODE/dockershim" \
    --container-runtime-endpoint="unix://$NODE/run/dockershim.sock" --pod-infra-container-image=hub-test/pause:1 --hostname-override=node \
    --node-ip="$NODE_ADDRESS"
  node_start kube-proxy --kubeconfig="$NODE/kubeconfig" --bind-address=127.0.0.1 --healthz-bind-address=127.0.0.1:20256 \
    --metrics-bind-address=127.0.0.1:20249 --proxy-mode=iptables --cluster-cidr=172.30.0.0/24 --hostname-override=node \
    --conntrack-max-per-core=0 --conntrack-min=0
  node_start python3 "$ROOT/Scripts/lib/deploy/node.py" "$NODE" "https://127.0.0.1:${NODE_PORTS[2]}" "$NODE_ADDRESS"
  until_true 60 "the node is ready" kube wait --for=condition=Ready node/node --timeout=1s || node_fails kubelet
}

node_fails() { tail -n 5 "$NODE/run/$1.log" >&2; fail "no Kubernetes"; }

# node_start PROGRAM ARGUMENT...: ours if there is one, else the machine's.
node_start() {
  local program=$1 name=$1
  shift
  [[ ! -x $PROGRAMS/$program ]] || program=$PROGRAMS/$program
  # The program itself, not a shell around it: its number is what ends it.
  nsenter --net="/run/netns/$NETNS" -- "$program" "$@" </dev/null >"$NODE/run/$name.log" 2>&1 &
  record_process "$NODE/run/$name.pid" $!
  disown $!
}

node_certificates() (
  cd "$NODE/pki" || exit
  openssl genrsa -out accounts.key 2048
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=test authority" -keyout ca.key -out ca.pem
  for name in server client; do
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" -keyout "$name.key" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out "$name.pem" \
      -extfile <(printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=%sAuth\nbasicConstraints=CA:FALSE\n' "$name")
  done
) 2>/dev/null

node_settings() {
  printf '%s,admin,admin,system:masters\n' "$(<"$NODE/token")" >"$NODE/tokens"
  cat >"$NODE/kubeconfig" <<END
apiVersion: v1
kind: Config
clusters:
  - {name: test, cluster: {server: "https://127.0.0.1:${NODE_PORTS[2]}", certificate-authority: $NODE/pki/ca.pem}}
users: [{name: admin, user: {token: $(<"$NODE/token")}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
END
  chmod 600 "$NODE/kubeconfig" "$NODE/tokens"
  cat >"$NODE/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_ADDRESS
port: 20250
healthzBindAddress: 127.0.0.1
healthzPort: 20248
readOnlyPort: 0
cgroupDriver: cgroupfs
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [$NODE_ADDRESS]
resolvConf: ""
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $NODE/pki/ca.pem}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 100Mi, nodefs.available: 1Gi}
# The images of other scenarios are nobody's garbage.
imageGCHighThresholdPercent: 100
enforceNodeAllocatable: []
END
}

node_forget_pods() { docker ps -aq --filter label=io.kubernetes.pod.name | xargs -r docker rm -f >/dev/null 2>&1 || true; }

# The programs first, so that nobody starts again what is removed after them.
node_down() {
  local name mount directory
  for name in python3 kubelet kube-proxy kube-scheduler kube-controller-manager kube-apiserver etcd; do
    end_process "$NODE/run/$name.pid" TERM 20
  done
  node_forget_pods
  while read -r mount; do
    umount "$mount" 2>/dev/null || umount -l "$mount"
  done < <(findmnt -rno TARGET | grep -F "$NODE/" | sort -r)
  for directory in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/kubepods; do
    if [[ -d $directory ]]; then find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null; fi
  done
  return 0
}

# What holds a pod's network: a registry would have it.
node_pause_image() {
  have_image hub-test/pause:1 && return
  docker build -q -t hub-test/pause:1 - <<END
FROM debian:bookworm-slim
ENTRYPOINT ["sleep", "infinity"]
END
}
