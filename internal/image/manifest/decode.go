package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
)

// decode reads one JSON document into v. Fields that are unknown are passed
// over, as the specification demands.
func decode(what string, raw []byte, limit int, v any) error {
	if len(raw) > limit {
		return fmt.Errorf("%w: the %s is longer than %d bytes", ErrInvalid, what, limit)
	}
	if err := checkShape(what, raw); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(v); err != nil {
		return explain(what, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the %s is followed by other text", ErrInvalid, what)
	}
	return nil
}

// checkShape bounds nesting before any decoder recurses, and the number of
// values, each of which may cost memory twenty times its text. It only counts
// brackets and commas outside strings; whether they fit is for the decoder.
func checkShape(what string, raw []byte) error {
	depth, values, inString, escaped := 0, 0, false, false
	for _, c := range raw {
		switch {
		case escaped:
			escaped = false
		case inString:
			escaped = c == '\\'
			inString = c != '"'
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("%w: the %s is nested deeper than %d levels", ErrInvalid, what, maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		case c == ',':
			if values++; values > maxValues {
				return fmt.Errorf("%w: the %s has more than %d values", ErrInvalid, what, maxValues)
			}
		}
	}
	return nil
}

// explain turns the decoder's errors into one that names the field and the
// types in JSON's words.
func explain(what string, err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType):
		field := wrongType.Field
		if field == "" {
			field = "the document"
		}
		return fmt.Errorf("%w: %s: %s is a JSON %s, want %s", ErrInvalid, what, clip(field), wrongType.Value, jsonKind(wrongType.Type))
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: the %s is not JSON at byte %d", ErrInvalid, what, syntax.Offset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: the %s is truncated", ErrInvalid, what)
	}
	return fmt.Errorf("%w: %s: %s", ErrInvalid, what, clip(err.Error()))
}

func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "a whole number in range"
}
