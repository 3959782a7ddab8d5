# SPDX-License-Identifier: Apache-2.0
# What `cairnd --print-config` prints (first file) becomes scdoc text in the place of @KEYS@ (second file).
function plain(text) { gsub(/[\\*_#]/, "\\\\&", text); return text }

NR == FNR && /^\[/ { keys = keys "# SECTION " plain($0) "\n\n"; next }
NR == FNR && /^# Takes / { takes = substr($0, 3); next }
NR == FNR && /^# / { help = substr($0, 3); next }
NR == FNR && / =/ {
	keys = keys "*" plain($1) "*\n\t" plain(help) "++\n" plain(takes) ".\n\n"
	n++
	next
}
NR == FNR { next }
$0 == "@KEYS@" { printf "%s", keys; next }
{ print }
END { if (!n) exit 1 }
