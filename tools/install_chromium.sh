#!/usr/bin/env bash
# Sees to it that there is a browser for tests/web/browser: Debian's chromium, unless there is one already. Where it may not
# install anything it says so and lets the tests be skipped; in CI, where the variable CI is set, that is a failure.
set -euo pipefail

for name in chromium chromium-browser google-chrome google-chrome-stable; do
	if command -v "$name" >/dev/null; then exit 0; fi
done

as_root=()
if [[ "$(id -u)" != 0 ]]; then as_root=(sudo -n); fi
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium fonts-dejavu-core)

if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
	echo "installing chromium for the browser tests"
	if "${install[@]}" >/dev/null || { "${as_root[@]}" apt-get update >/dev/null && "${install[@]}" >/dev/null; }; then exit 0; fi
fi

echo "warning: there is no chromium and none can be installed here: the browser tests will be SKIPPED" >&2
[[ -z "${CI:-}" ]]
