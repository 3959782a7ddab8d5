# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Completion for cairn, loaded by bash-completion at the first TAB.
#
# Commands, options and what an argument is come from `cairn .. --help`, so they can't fall behind it;
# only the words that an option or argument takes stand here. Names of images come from the daemon; when
# that is off there are none. A name is somebody else's text: it is quoted and never expanded.

# The program of the command line, with its --socket
_cairn_ask() { timeout 2 "${_cairn_program[@]}" "$@" 2>/dev/null; }

# The commands below a command that has some
_cairn_commands() {
	_cairn_ask "$@" --help | sed -nE '1{/COMMAND/!q}; s/^  ([a-z]+) .*/\1/p'
}

_cairn_options() {
	_cairn_ask "$@" --help | sed -nE 's/^ +((-[a-zA-Z]), )?(--[a-z-]+)( .*|$)/\2 \3/p' | tr ' ' '\n'
	printf '%s\n' -h --help
}

# _cairn_value OPTION [COMMAND...]: the placeholder of the option's value; nothing if it takes none
_cairn_value() {
	local option=$1
	shift
	_cairn_ask "$@" --help |
		sed -nE "s/^ +((-[a-zA-Z], )?$option|$option, --[a-z-]+) ([A-Z]+)( .*|\$)/\3/p" | head -n 1
}

# _cairn_argument N [COMMAND...]: the placeholder of the Nth argument; the last for all beyond if it repeats
_cairn_argument() {
	local n=$1 word='' words
	shift
	words=$(_cairn_ask "$@" --help | sed -nE "1s/^Usage: cairn( $*)?//p" |
		sed -E 's/\[-[^]]*\]|--[a-z-]+ [A-Z]+|--[a-z-]+//g; s/[][]/ /g; s/ +\.\.\./.../g')
	for word in $words; do
		[ $((n -= 1)) != 0 ] || break
	done
	if [ "$n" = 0 ] || [[ $word == *... ]]; then echo "${word%...}"; fi
}

# The members $1 (name, device) of the images that are served
_cairn_images() { _cairn_ask status --json | sed -nE "s/^\t\t\t\"$1\":\t\"(.+)\",?\$/\1/p"; }

# _cairn_offer CURRENT: lines of stdin that begin so
_cairn_offer() {
	local word
	while IFS= read -r word; do
		if [ -n "$word" ] && [[ $word == "$1"* ]]; then COMPREPLY+=("$(printf %q "$word")"); fi
	done
}

_cairn_offer_files() { # -f or -d, CURRENT
	compopt -o filenames
	mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen "$1" -- "$2")
}

_cairn_offer_urls() {
	compopt -o nospace
	case $1 in
	file://*) mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -P file:// -- "${1#file://}") ;;
	*) _cairn_offer "$1" < <(printf '%s\n' az:// https:// file:///) ;;
	esac
}

# _cairn_offer_settings CURRENT COMMAND...: "  key=VALUE   text" of its help
_cairn_offer_settings() {
	local current=$1
	shift
	compopt -o nospace
	_cairn_offer "$current" < <(_cairn_ask "$@" --help | sed -nE 's/^  ([a-z_]+=)[^ ]+  .*/\1/p')
}

# _cairn_offer_values PLACEHOLDER CURRENT [COMMAND...]: what may stand for it
_cairn_offer_values() {
	local kinds=${1//|/ } kind
	if [ "$1:${3-}" = IMAGE:image ]; then kinds=FILE; fi # elsewhere an image that is served
	for kind in $kinds; do
		case $kind in
		NAME | IMAGE) _cairn_offer "$2" < <(_cairn_images name) ;;
		DEVICE) _cairn_offer "$2" < <(_cairn_images device) ;;
		URL) _cairn_offer_urls "$2" ;;
		DIR | CGROUP) _cairn_offer_files -d "$2" ;;
		DEV) _cairn_offer "$2" < <(compgen -G '/dev/nbd*') ;;
		FILE | PATH) _cairn_offer_files -f "$2" ;;
		WAY) _cairn_offer "$2" < <(printf '%s\n' auto nbd nbdfuse) ;;
		TYPE) _cairn_offer "$2" < <(printf '%s\n' erofs ext4 xfs squashfs) ;;
		KEY=VALUE) _cairn_offer_settings "$2" "${@:3}" ;;
		WHEN) _cairn_offer "$2" < <(printf '%s\n' auto never) ;;
		POLICY) _cairn_offer "$2" < <(printf '%s\n' eio wait) ;;
		off) _cairn_offer "$2" < <(echo off) ;;
		STATE) _cairn_offer "$2" < <(printf '%s\n' on off) ;;
		FS) _cairn_offer "$2" < <(printf '%s\n' erofs ext4) ;;
		esac
	done
}

_cairn() {
	# shellcheck disable=SC2034 # prev is what _get_comp_words_by_ref is asked for
	local cur prev words cword i value wanted='' arguments=0 command=()
	local _cairn_program=("${COMP_WORDS[0]/#\~/$HOME}")
	COMPREPLY=()
	_get_comp_words_by_ref -n := cur prev words cword # a URL is one word, and so is KEY=VALUE

	for ((i = 1; i < cword; i++)); do
		if [[ ${words[i]} == -* ]]; then
			value=$(_cairn_value "${words[i]}" "${command[@]}")
			[ -n "$value" ] || continue
			i=$((i + 1))
			if [ $i = "$cword" ]; then wanted=$value; fi
			if [ $i -lt "$cword" ] && [ "${words[i - 1]}" = --socket ]; then
				_cairn_program+=(--socket "${words[i]}")
			fi
		elif [ $arguments = 0 ] && grep -qxF -- "${words[i]}" < <(_cairn_commands "${command[@]}"); then
			command+=("${words[i]}")
		else
			arguments=$((arguments + 1))
		fi
	done

	if [ -n "$wanted" ]; then
		_cairn_offer_values "$wanted" "$cur"
	elif [[ $cur == -* ]]; then
		_cairn_offer "$cur" < <(_cairn_options "${command[@]}")
	elif [ $arguments = 0 ] && [ -n "$(_cairn_commands "${command[@]}")" ]; then
		_cairn_offer "$cur" < <(_cairn_commands "${command[@]}")
	else
		_cairn_offer_values "$(_cairn_argument $((arguments + 1)) "${command[@]}")" "$cur" "${command[@]}"
	fi
	__ltrim_colon_completions "$cur"
}

complete -F _cairn cairn
