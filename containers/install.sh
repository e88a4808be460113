#!/bin/sh
# Run in the build stage: makes /opt/bertkit, then /app with bertkit alone, from what lies in /gathered. No network.
set -eu
python=$(command -v python3) || { echo "the base has no python3" >&2; exit 1; }
pip="$python $(echo /gathered/tools/pip-*.whl)/pip --isolated --disable-pip-version-check --no-cache-dir"
venv=/opt/bertkit
offline="--no-index --find-links /gathered/wheels --no-compile --quiet"

# unchecked-hash: a layer's files may get other times than they had, which would make bytecode by time stale, and a
# read-only root cannot hold a new one. Left out: what a usual run does not import.
compile() {
    "$python" -m compileall -q -j 2 --invalidation-mode unchecked-hash \
        -x '/(tests|testing|sympy|networkx|pygments|_inductor|setuptools|openmpi)/' "$1"
}

version() {  # of the torch that this Python imports; nothing where there is none
    "$1" -c 'from importlib.metadata import version as v; print(v("torch"))' 2> /dev/null || true
}

own_environment() {  # torch is among the wheels
    "$python" -m venv --without-pip "$venv"
    $pip --python "$venv/bin/python" install $offline --no-deps --require-hashes -r /gathered/requirements.txt
    site=$(echo "$venv"/lib/python3*/site-packages)
    # 210 MB that no run reads: torch's own tests and headers (there is no compiler), other packages' tests
    (cd "$site" && rm -rf torch/test torch/include torch/bin/test_* torch/bin/*Test torch/bin/protoc* \
        && for name in networkx numpy scipy sklearn sympy; do
            find "$name" -type d -name tests -prune -exec rm -rf {} +
        done)
}

beside_torch() {  # of the base, at version $1
    (cd /gathered && sha256sum --check --quiet SHA256SUMS)
    echo "torch===$1" > /tmp/torch.txt
    "$python" -m venv --without-pip --system-site-packages "$venv"
    # The base's Python may be an environment of its own, whose packages a further one does not see by itself.
    "$python" -c 'import sysconfig; print(*{sysconfig.get_path(n) for n in ("purelib", "platlib")}, sep="\n")' \
        > "$(echo "$venv"/lib/python3*/site-packages)/base.pth"
    $pip --python "$venv/bin/python" install $offline -c /tmp/torch.txt -r /gathered/names.txt
    rm /tmp/torch.txt
    if [ "$(version "$venv/bin/python")" != "$1" ] || ls -d "$venv"/lib/python3*/site-packages/torch 2> /dev/null; then
        echo "the base's torch $1 was replaced" >&2
        exit 1
    fi
    touch "$venv/.torch-of-the-base"
}

case "$1" in
dependencies)
    there=$(version "$python")
    if [ -n "$there" ]; then beside_torch "$there"; else own_environment; fi
    compile "$venv"
    ;;
bertkit)
    $pip --python "$venv/bin/python" install --no-index --no-deps --no-compile --no-warn-script-location \
        --quiet --root /app /gathered/bertkit/*.whl
    compile /app
    share=/app/usr/share/bertkit
    mkdir -p "$share"
    cp /containers/health.py "$share"
    PYTHONPATH=$(echo /app"$venv"/lib/python3*/site-packages) \
        $pip --python "$venv/bin/python" inspect > /tmp/inspect.json
    "$python" /containers/sbom.py /tmp/inspect.json > "$share/sbom.cdx.json"
    rm /tmp/inspect.json
    ;;
esac
