#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# any event loop
# --help, man page and bash completion of every command say the same, and of nothing else. Commands are
# found by asking --help, so that a new one is looked at without being added here.
. "$(dirname "$0")/lib.sh"

MAN=$ROOT/docs/man

# --- what each of the three says; a command is its words, `image push`, the program itself is '' ----------

# shellcheck disable=SC2086 # the words of a command
help() { timeout 10 "$CAIRN" $1 --help; }

# "  mount URL DIR      text" -> "mount URL DIR"; only a command whose usage says COMMAND has some
help_commands() { help "$1" | sed -nE '1{/COMMAND/!q}; s/^  ([a-z]+( [A-Z.|]+)*)  +[^ ].*/\1/p'; }

# "  -f, --force   text" -> "-f, --force"; "  --name NAME   text" -> "--name NAME"
options_of_help() { sed -nE 's/^ +((-[a-zA-Z], )?--[a-z-]+( [A-Z]+)?)(  .*|$)/\1/p' | sort; }

# "  half_life=SECONDS   text" -> "half_life=SECONDS"
settings_of_help() { sed -nE 's/^  ([a-z_]+=[^ ]+)  .*/\1/p' | plain | sort; }

# Every command, each on a line, '' first.
all_commands() {
	local name
	echo "$1"
	help_commands "$1" | while read -r name _; do all_commands "${1:+$1 }$name"; done
}

page() { local p="cairn${1:+ $1}"; echo "$MAN/${p// /-}.1.scd"; }

plain() { sed -E 's/[*_\\]//g'; }

# Definitions begin a line with a bold option or, under COMMANDS, with a bold word.
options_of_page() { grep -E '^\*-' "$1" | plain | sort; }
settings_of_page() { grep -E '^\*[a-z_]+=' "$1" | plain | sort; }
commands_of_page() { sed -n '/^# COMMANDS/,/^# [^C]/p' "$1" | grep -E '^\*[a-z]' | plain; }

# complete WORD...: what TAB offers for the last word
complete_words() {
	timeout 60 bash -c '
		. /usr/share/bash-completion/bash_completion
		compopt() { :; } # there is no readline here
		. "$1"
		shift
		COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_TYPE=9 COMP_KEY=9
		COMP_POINT=${#COMP_LINE}
		_cairn
		printf "%s\n" "${COMPREPLY[@]}"
	' - "$ROOT/deploy/completion/cairn.bash" "$@" | sort
}

# every_command CHECK: CHECK COMMAND for each
every_command() {
	local c n=0
	while IFS= read -r c; do
		"$1" "$c"
		n=$((n + 1))
	done < <(all_commands '')
	[ $n -gt 10 ] || fail "only $n commands were found in cairn --help"
}

# assert_same WHAT ONE OTHER: two lists, a line each
assert_same() { diff -u --label "$1" <(echo "$2") --label "$1" <(echo "$3") || fail "$1 differ (- in the first, + in the second)"; }

# --- help and man page ------------------------------------------------------------------------------

page_matches_help() {
	local at="options of 'cairn $1' in --help and man page"
	[ -f "$(page "$1")" ] || fail "'cairn $1' has no man page $(page "$1")"
	# --help itself is in the page of cairn, for all
	assert_same "$at" "$(help "$1" | options_of_help)" "$(options_of_page "$(page "$1")")"
	assert_same "commands of 'cairn $1' in --help and man page" \
		"$(help_commands "$1" | sort)" "$(commands_of_page "$(page "$1")" | sort)"
	assert_same "settings of 'cairn $1' in --help and man page" \
		"$(help "$1" | settings_of_help)" "$(settings_of_page "$(page "$1")")"
}
that_every_command_has_a_page_with_its_options_and_commands() { every_command page_matches_help; }

that_there_is_no_page_of_a_command_that_is_not() {
	local wanted
	wanted=$(all_commands '' | while IFS= read -r c; do basename "$(page "$c")"; done | sort)
	assert_same "commands and pages" "$wanted" "$(cd "$MAN" && printf '%s\n' *.1.scd | sort)"
}

that_the_daemons_page_has_its_options() {
	assert_same "options of cairnd in --help and man page" \
		"$("$CAIRND" --help | options_of_help)" "$(options_of_page "$MAN/cairnd.8.scd")"
}

usage_is_in_help() {
	local o
	# the first line, and those that go on with it
	for o in $(help "$1" | sed -nE '1p; 2,/^( {0,9}[^ ]|$)/{/^ {10,}/p}' | grep -oE -- '--[a-z][a-z-]*'); do
		help "$1" | options_of_help | grep -qE -- "$o( |\$)" || fail "'cairn $1 --help': $o is in the usage only"
	done
}
that_the_usage_line_names_no_option_that_is_not_explained() { every_command usage_is_in_help; }

# --- help and program -------------------------------------------------------------------------------

options_are_taken() {
	local option value said
	while read -r option value; do
		if [ -z "$option" ] || [ "$option" = --version ] || [ "$option" = --help ]; then continue; fi
		# shellcheck disable=SC2086
		said=$(timeout 10 "$CAIRN" $1 "$option" ${value:+x} --help 2>&1 >/dev/null) || true
		if grep -qE 'unrecognized|no such option|unknown|ambiguous|requires an argument' <<<"$said"; then
			fail "'cairn $1' does not take its $option: $said"
		fi
	done < <(help "$1" | options_of_help | sed 's/^-., //')
}
that_every_option_in_help_is_taken() { every_command options_are_taken; }

# The tables for getopt_long() are all there is, and a long option is written nowhere else in braces.
that_no_option_is_missing_from_help() {
	local o known tables
	known=$(all_commands '' | while IFS= read -r c; do help "$c"; done; "$CAIRND" --help)
	tables=$(cat "$ROOT"/userspace/cli/*.c "$ROOT"/userspace/supervisor/main.c | tr -d '\n' |
		grep -oE '\{"[a-z-]+",\s*(no_argument|required_argument|optional_argument|[012]),\s*NULL,' | cut -d'"' -f2 | sort -u)
	assert_says "$tables" '^refresh$'
	for o in $tables; do
		grep -qE "^ +(-., )?--$o( |\$)" <<<"$known" || fail "--$o is taken somewhere and in no --help"
	done
}

# --- completion -------------------------------------------------------------------------------------

completion_matches_help() {
	local wanted
	wanted=$({ help "$1" | options_of_help | sed -E 's/ [A-Z]+$//; s/, /\n/'; printf '%s\n' -h --help; } | sort -u)
	# shellcheck disable=SC2086
	assert_same "options of 'cairn $1' in --help and completion" "$wanted" "$(complete_words "$CAIRN" $1 - | sort -u)"
	[ -n "$(help_commands "$1")" ] || return 0
	wanted=$(help_commands "$1" | cut -d' ' -f1 | sort)
	# shellcheck disable=SC2086
	assert_same "commands of 'cairn $1' in --help and completion" "$wanted" "$(complete_words "$CAIRN" $1 '')"
}
that_completion_offers_every_command_and_option() {
	[ -r /usr/share/bash-completion/bash_completion ] || skip "needs bash-completion"
	every_command completion_matches_help
}

# A value whose placeholder completion has words for is offered some: a new WAY can't be forgotten.
values_are_completed() {
	local option value words
	while read -r option value; do
		case $value in
		FS | WAY | TYPE) ;;
		*) continue ;;
		esac
		# shellcheck disable=SC2086
		words=$(complete_words "$CAIRN" $1 "$option" '')
		[ -n "$words" ] || fail "completion has no word for 'cairn $1 $option $value'"
		for word in $words; do
			help "$1" | grep -A2 -E -- "^ +(-., )?$option $value" | grep -qw -- "$word" ||
				fail "completion offers '$word' for 'cairn $1 $option', and --help does not"
		done
	done < <(help "$1" | options_of_help | sed 's/^-., //')
}
that_the_words_of_options_are_those_of_help() {
	[ -r /usr/share/bash-completion/bash_completion ] || skip "needs bash-completion"
	every_command values_are_completed
}

that_completion_offers_files_where_files_are_wanted() {
	mkdir -p "$T/here/folder"
	: >"$T/here/file"
	assert_eq "$(complete_words "$CAIRN" image build "$T/here/" | xargs)" "$T/here/folder" "folders to build of"
	assert_eq "$(complete_words "$CAIRN" image push "$T/here/" | xargs)" "$T/here/file $T/here/folder" "files to push"
	assert_eq "$(complete_words "$CAIRN" --socket "$T/here/fi")" "$T/here/file" "a socket"
	assert_says "$(complete_words "$CAIRN" mount '')" '^az://$'
}

that_completion_offers_the_images_that_are_served() {
	head -c 65536 /dev/zero >"$T/blob"
	cairnd_start a
	cairn export "file://$T/blob" --name one >/dev/null
	assert_says "$(complete_words "$CAIRN" --socket "$T/d/a/c.sock" detach '')" '^one$'
	assert_eq "$(complete_words "$CAIRN" --socket "$T/d/a/c.sock" detach on)" one "names that begin with on"
	cairnd_stop
}

# The daemon takes no such name; whoever answers on a socket of theirs may.
that_completion_runs_nothing_that_stands_in_a_name() {
	cat >"$T/cairn" <<-EOF
		#!/bin/sh
		[ "\$1" != status ] || { printf '\t\t\t"name":\t"x\$(touch $T/ran) y",\n'; exit; }
		exec $CAIRN "\$@"
	EOF
	chmod +x "$T/cairn"
	# shellcheck disable=SC2016 # not to be expanded is what this is about
	assert_eq "$(complete_words "$T/cairn" detach x)" 'x\$\(touch\ '"$T"'/ran\)\ y' "the name, quoted"
	[ ! -e "$T/ran" ] || fail "completion ran what stood in an image's name"
}

that_completion_is_silent_when_the_daemon_is_off() {
	local said
	said=$(complete_words "$CAIRN" --socket "$T/none.sock" detach o 2>&1)
	assert_eq "$said" '' "what TAB said without a daemon"
}

# --- the pages themselves ------------------------------------------------------------------------------

that_every_page_is_well_formed() {
	local f
	need_tool man
	make -s -C "$ROOT" man >/dev/null
	for f in "$BUILD"/man/*.[158]; do
		# mandb's own check, and the reader's
		assert_eq "$(LC_ALL=C.UTF-8 MANROFFSEQ='' man --warnings -l "$f" 2>&1 >/dev/null)" '' "warnings of ${f##*/}"
		lexgrog "$f" >/dev/null || fail "${f##*/} has no NAME that apropos can read"
	done
}

that_pages_refer_to_pages_that_exist() {
	local ref
	for ref in $(grep -ohE '\*cairn[a-z.-]*\*\([1-8]\)' "$MAN"/*.scd | plain | sort -u); do
		[ -f "$MAN/$(sed -E 's/\(([1-8])\)/.\1/' <<<"$ref").scd" ] || fail "$ref is referred to and is no page"
	done
}

that_every_key_is_in_the_settings_page() {
	local key text
	make -s -C "$ROOT" man >/dev/null
	text=$(sed 's/\\//g' "$BUILD/man/cairnd.conf.5")
	for key in $("$CAIRND" -c /dev/null --print-config | sed -nE 's/^([a-z_]+) =.*/\1/p'); do
		grep -qE "^fB$key" <<<"$text" || fail "cairnd.conf.5 lacks the key $key"
	done
	[ -n "$key" ] || fail "cairnd --print-config printed no key"
}

run_tests
