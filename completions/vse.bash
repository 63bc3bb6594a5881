# bash completion of vse. SPDX-License-Identifier: Apache-2.0
# Everything that is known stands in `vse __complete`; here it only meets bash.
_vse() {
	local IFS=$'\n' line words cword cur prev
	# "--name=value" is one word here, as vse sees it.
	_get_comp_words_by_ref -n '=:' words cword cur prev 2>/dev/null ||
		{ words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}; }
	COMPREPLY=()
	for line in $("${words[0]}" __complete -- "${words[@]:1:cword}" 2>/dev/null); do
		if [[ $line == :file ]]; then
			compopt -o filenames
			COMPREPLY+=($(compgen -f -- "${cur#--*=}"))
		else
			COMPREPLY+=("${line%%$'\t'*}")
		fi
	done
	[[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace
	declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
	# bash itself splits at "=": leave what stands before it.
	[[ $cur != --*=* || $COMP_WORDBREAKS != *=* ]] || COMPREPLY=("${COMPREPLY[@]#"${cur%%=*}="}")
} && complete -F _vse vse
