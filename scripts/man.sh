#!/bin/sh
# Writes the manual pages and the shells' completions that a package installs below a directory, laid out as below /usr/share.
#
#   scripts/man.sh target/release/flok pkg/usr/share
set -eu
flok=${1:?usage: man.sh FLOK DIRECTORY}
share=${2:?usage: man.sh FLOK DIRECTORY}

"$flok" man "$share/man/man1"
gzip -9nf "$share"/man/man1/flok*.1
mkdir -p "$share/bash-completion/completions" "$share/zsh/site-functions" "$share/fish/vendor_completions.d"
"$flok" completion bash > "$share/bash-completion/completions/flok"
"$flok" completion zsh > "$share/zsh/site-functions/_flok"
"$flok" completion fish > "$share/fish/vendor_completions.d/flok.fish"
