#compdef micro
# Completion of micro for zsh 5. A word that ends in one of = / : . @ goes on, and gets no space.
_micro() {
	local line word about
	local -i wide=0
	local -a typed whole open whole_about open_about
	typed=("${(@)words[2,CURRENT-1]}" "$PREFIX")
	local -a lines=("${(@f)$("${(Q)words[1]/#\~\//$HOME/}" __complete zsh "${(@)typed}" 2>/dev/null </dev/null)}")
	for line in "${(@)lines%%$'\t'*}"; do
		(( $#line > wide )) && wide=$#line
	done
	for line in "${(@)lines}"; do
		word=${line%%$'\t'*} about=$word
		[[ -n $word ]] || continue
		[[ $line == *$'\t'* ]] && about="${(r:wide:)word}  -- ${line#*$'\t'}"
		if [[ $word == *[=/:.@] ]]; then
			open+=("$word") open_about+=("$about")
		else
			whole+=("$word") whole_about+=("$about")
		fi
	done
	(( $#whole )) && compadd -V micro -l -d whole_about -a -- whole
	(( $#open )) && compadd -V micro-open -l -d open_about -S '' -a -- open
	(( $#whole + $#open ))
}
if [[ ${funcstack[1]} == _micro ]]; then
	_micro "$@"
else
	compdef _micro micro
fi
