#!/usr/bin/env bash
# Two "nodes" on one machine: two network namespaces that see each other over a virtual cable, each
# with a torchrun of its own. It shows what training on several machines needs, and needs no second
# machine; it wants root, Linux and iproute2.
#
#   two-nodes.sh TEXT RUN [--processes-per-node N] [hairpin's own options…]
set -euo pipefail
text=$1 run=$2
shift 2
processes=2
if [[ ${1:-} == --processes-per-node ]]; then processes=$2 && shift 2; fi

clean() { for node in 1 2; do ip netns delete "hairpin$node" 2> /dev/null || true; done; }
trap clean EXIT
clean
for node in 1 2; do ip netns add "hairpin$node"; done
ip link add cable1 netns hairpin1 type veth peer name cable2 netns hairpin2
for node in 1 2; do
  ip -n "hairpin$node" address add "10.77.0.$node/24" dev "cable$node"
  ip -n "hairpin$node" link set "cable$node" up
  ip -n "hairpin$node" link set lo up
done

node() {
  ip netns exec "hairpin$1" env GLOO_SOCKET_IFNAME="cable$1" OMP_NUM_THREADS=1 \
    torchrun --nnodes 2 --nproc-per-node "$processes" --max-restarts 3 --local-addr "10.77.0.$1" \
    --rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29400 --rdzv-id hairpin \
    --rdzv-conf "is_host=$((2 - $1))" \
    --no-python hairpin train "$text" --out "$run" --or-resume "${@:2}"
}
node 2 "$@" &
node 1 "$@"
wait
