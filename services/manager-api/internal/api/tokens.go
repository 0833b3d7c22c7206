package api

// CheckTokens says what is wrong with configured tokens, without showing a hash.
func CheckTokens(tokens []Token) error {
	_, err := credentials(tokens)
	return err
}
