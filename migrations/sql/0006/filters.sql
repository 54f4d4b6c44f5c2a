-- Filters and declared fields: what searchapp/search/filters.py and searchapp/fields.py make of them, so that SQL keeps
-- the same documents by the same plans, and refuses in the same words. E'' where there is a backslash: whatever
-- standard_conforming_strings is, it means the same.

CREATE FUNCTION searchapp_data.escaped(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- controls, formats, spaces but for the common one, private use
  unprintable CONSTANT text := E'[\\u0001-\\u001f\\u007f-\\u00a0\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u1680'
    || E'\\u180e\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u3000\\ue000-\\uf8ff\\ufdd0-\\ufdef\\ufeff'
    || E'\\ufff0-\\ufffb\\ufffe\\uffff\\U000e0000-\\U000e00ff\\U000e01f0-\\U0010ffff]';
BEGIN
  IF value !~ unprintable THEN
    RETURN value;
  END IF;
  RETURN (
    SELECT string_agg(
      CASE
        WHEN letter !~ unprintable THEN letter
        WHEN letter = E'\t' THEN E'\\t'
        WHEN letter = E'\n' THEN E'\\n'
        WHEN letter = E'\r' THEN E'\\r'
        WHEN ascii(letter) < 256 THEN E'\\x' || lpad(to_hex(ascii(letter)), 2, '0')
        WHEN ascii(letter) < 65536 THEN E'\\u' || lpad(to_hex(ascii(letter)), 4, '0')
        ELSE E'\\U' || lpad(to_hex(ascii(letter)), 8, '0')
      END, '' ORDER BY place)
    FROM string_to_table(value, NULL) WITH ORDINALITY AS letters(letter, place));
END $$;
COMMENT ON FUNCTION searchapp_data.escaped(text) IS
  'A text, what is not printable in it escaped, which might act on a terminal.';

CREATE FUNCTION searchapp_data.quoted(value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  shown text := searchapp_data.escaped(replace(value, E'\\', E'\\\\'));
BEGIN
  RETURN CASE
    WHEN strpos(shown, '''') > 0 AND strpos(shown, '"') = 0 THEN format('"%s"', shown)
    ELSE format('''%s''', replace(shown, '''', E'\\'''))
  END;
END $$;
COMMENT ON FUNCTION searchapp_data.quoted(text) IS 'A name as messages show it, which is how Python shows it.';

CREATE FUNCTION searchapp_data.shown(value jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  shown text := searchapp_data.escaped(left(value::text, 61));
BEGIN
  RETURN CASE WHEN length(shown) <= 60 THEN shown ELSE left(shown, 60) || '...' END;
END $$;
COMMENT ON FUNCTION searchapp_data.shown(jsonb) IS 'A value as messages show it: of a long one the beginning.';

CREATE FUNCTION searchapp_data.field_above_all(type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE type WHEN 'number' THEN '''NaN''::numeric' ELSE quote_literal(chr(1114111)) END;
END $$;
COMMENT ON FUNCTION searchapp_data.field_above_all(text) IS
  'The SQL text of what a declared field''s index has for documents of which only a closer look tells.';

CREATE FUNCTION searchapp_data.field_expression(name text, type text, metadata text DEFAULT 'metadata') RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  steps text[] := string_to_array(name, '.');
  above_all text := searchapp_data.field_above_all(type);
  parent text := metadata;
  doubtful text := format('%s ? %L', metadata, name);  -- a field that is called so, dots and all
  step text;
  found text;
BEGIN
  FOREACH step IN ARRAY trim_array(steps, 1) LOOP
    parent := format('(%s -> %L)', parent, step);
    doubtful := format('%s OR jsonb_typeof(%s) = ''array''', doubtful, parent);
  END LOOP;
  found := format(
    'CASE jsonb_typeof(%1$s -> %2$L) ' || CASE type
      WHEN 'number' THEN 'WHEN ''number'' THEN (%1$s -> %2$L)::numeric'
      ELSE 'WHEN ''string'' THEN left(%1$s ->> %2$L, 500) COLLATE "C"'
    END || ' WHEN ''array'' THEN %3$s END',
    parent, steps[cardinality(steps)], above_all);
  IF cardinality(steps) = 1 THEN
    RETURN found;
  END IF;
  RETURN format('CASE WHEN %s THEN %s ELSE %s END', doubtful, above_all, found);
END $$;
COMMENT ON FUNCTION searchapp_data.field_expression(text, text, text) IS
  'The SQL text of what a declared field''s index is on. Arguments: the field''s name and type, and the SQL text of the'
  ' column of metadata.';

CREATE FUNCTION searchapp_data.filter_path(paths text[], test text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- lax mode unwraps the field's array and then, for the comparison, an array in it; MongoDB only the first
  met text := coalesce(' ? ((' || test || ') && @.type() != "array")', '');
BEGIN
  RETURN (
    SELECT format('(%s)', string_agg(format('d.metadata @? %L::jsonpath', '$' || path || met), ' OR '))
    FROM unnest(paths) AS path);
END $$;
COMMENT ON FUNCTION searchapp_data.filter_path(text[], text) IS
  'The condition that a field, or an element of it, passes a test of jsonpath; without a test, that it is there.';

CREATE FUNCTION searchapp_data.filter_finds(paths text[], value jsonb, places text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT format('(%s)', string_agg(
      format(
        'EXISTS (SELECT FROM jsonb_path_query(d.metadata, %L::jsonpath) AS found(value) WHERE found.value = %L::jsonb)',
        '$' || path || place, value),
      ' OR '))
    FROM unnest(paths) AS path CROSS JOIN unnest(places) AS place);
END $$;
COMMENT ON FUNCTION searchapp_data.filter_finds(text[], jsonb, text[]) IS
  'The condition that a field''s value (place empty) or an element of it (place [*]) equals an array or object.';

CREATE FUNCTION searchapp_data.filter_comparison(field text, paths text[], comparisons jsonb, type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  open_ended boolean := NOT comparisons ?| ARRAY['==', '<', '<='];
  comparable boolean := type IS NOT NULL;
  expression text;
  above_all text;
  sign text;
  wanted jsonb;
  one jsonb;
  tests text;
  literals text;
  by_path text;
  certain text;
BEGIN
  IF type IS NOT NULL THEN
    expression := searchapp_data.field_expression(field, type, 'd.metadata');
    above_all := searchapp_data.field_above_all(type);
  END IF;
  -- loops and no aggregates: their statement would be planned anew each time, which took half of the whole
  FOR sign, wanted IN SELECT * FROM jsonb_each(comparisons) LOOP
    tests := NULL;
    literals := NULL;
    FOR one IN SELECT * FROM jsonb_array_elements(wanted) LOOP
      tests := concat_ws(' || ', tests, format('@ %s %s', sign, one));
      comparable := comparable AND CASE
        WHEN type = 'number' THEN jsonb_typeof(one) = 'number'
        ELSE jsonb_typeof(one) = 'string' AND length(one #>> '{}') < 500
          AND (one #>> '{}') COLLATE "C" < chr(1114111)
      END;
      IF comparable THEN
        literals := concat_ws(
          ', ', literals, format(CASE type WHEN 'number' THEN '%L::numeric' ELSE '%L' END, one #>> '{}'));
      END IF;
    END LOOP;
    by_path := concat_ws(' AND ', by_path, searchapp_data.filter_path(paths, tests));
    certain := concat_ws(' AND ', certain, format('%s %s (%s)', expression, replace(sign, '==', 'IN'), literals));
  END LOOP;
  IF NOT comparable THEN
    RETURN format('(%s)', by_path);
  END IF;
  IF open_ended THEN
    certain := format('%s AND %s < %s', certain, expression, above_all);
  END IF;
  RETURN format('((%s) OR (%s >= %s AND %s))', certain, expression, above_all, by_path);
END $$;
COMMENT ON FUNCTION searchapp_data.filter_comparison(text, text[], jsonb, text) IS
  'The condition that a field compares with scalars. Arguments: its name, the paths to it, lists of scalars by'
  ' operators of jsonpath, and the type by which its index is used; NULL: it has none.';

CREATE FUNCTION searchapp_data.filter_among(field text, paths text[], wanted jsonb, type text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  scalars jsonb := jsonb_path_query_array(wanted, 'strict $[*] ? (@.type() != "array" && @.type() != "object")');
  condition text;
BEGIN
  IF scalars <> wanted THEN
    SELECT string_agg(searchapp_data.filter_finds(paths, e.value, ARRAY['', '[*]']), ' OR ') INTO condition
    FROM jsonb_array_elements(wanted) AS e(value)
    WHERE jsonb_typeof(e.value) IN ('array', 'object');
  END IF;
  IF scalars <> '[]' THEN
    condition := concat_ws(' OR ', condition, searchapp_data.filter_comparison(
      field, paths, jsonb_build_object('==', scalars), type));
  END IF;
  IF scalars @> '[null]' THEN  -- MongoDB: null means null or missing
    condition := concat_ws(' OR ', condition, 'NOT ' || searchapp_data.filter_path(paths));
  END IF;
  RETURN coalesce('(' || condition || ')', 'false');
END $$;
COMMENT ON FUNCTION searchapp_data.filter_among(text, text[], jsonb, text) IS
  'The condition that a field is one of the values wanted, or an array that has one of them.';

CREATE FUNCTION searchapp_data.filter_contains(paths text[], wanted jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  condition text := (
    SELECT string_agg(format('d.metadata @? %L::jsonpath', '$ ? (@' || path || '.type() == "array")'), ' OR ')
    FROM unnest(paths) AS path);
  one jsonb;
BEGIN
  condition := format('(%s)', condition);
  FOR one IN SELECT * FROM jsonb_array_elements(wanted) LOOP
    condition := condition || ' AND ' || CASE
      WHEN jsonb_typeof(one) IN ('array', 'object') THEN searchapp_data.filter_finds(paths, one, ARRAY['[*]'])
      ELSE searchapp_data.filter_path(paths, format('@ == %s', one))
    END;
  END LOOP;
  RETURN condition;
END $$;
COMMENT ON FUNCTION searchapp_data.filter_contains(text[], jsonb) IS
  'The condition that a field is an array that has each of the values wanted.';

CREATE FUNCTION searchapp_data.filter_operators(
  field text, operators jsonb, declared jsonb, negated boolean, INOUT conditions int, OUT condition text)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  signs CONSTANT jsonb := '{"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}';
  quoted_name text := to_json(field)::text;
  -- under its name, and where that has dots, in the objects that they lead into
  paths text[] := ARRAY['.' || quoted_name]
    || CASE WHEN strpos(field, '.') > 0 THEN ARRAY['.' || replace(quoted_name, '.', '"."')] END;
  -- none under a negation, for what the index is on may be null
  type text := CASE WHEN NOT negated THEN declared ->> field END;
  comparisons jsonb := '{}';
  name text;
  operand jsonb;
  refusal text;
  inner_part record;
  part text;
BEGIN
  FOR name, operand IN
    SELECT o.name, o.operand
    FROM jsonb_each(operators) WITH ORDINALITY AS o(name, operand, place)
    ORDER BY signs ? o.name, o.place
  LOOP
    refusal := CASE
      WHEN name IN ('$in', '$nin') AND jsonb_typeof(operand) <> 'array' THEN 'needs a list'
      WHEN name = '$exists' AND jsonb_typeof(operand) <> 'boolean' THEN 'is true or false'
      WHEN name = '$not' AND (operand @? 'strict $.keyvalue() ? (@.key starts with "$")') IS NOT TRUE THEN
        'needs operators such as {"$gt": 5}'
      WHEN signs ? name AND jsonb_typeof(operand) NOT IN ('number', 'string') THEN 'compares with a number or a text'
    END;
    IF refusal IS NOT NULL THEN
      RAISE EXCEPTION '% of % %, got %',
        name, searchapp_data.quoted(field), refusal, searchapp_data.shown(operand)
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF name IN ('$eq', '$ne') OR name = '$contains' AND jsonb_typeof(operand) <> 'array' THEN
      operand := jsonb_build_array(operand);
    END IF;
    conditions := conditions + CASE
      WHEN name = '$not' THEN 0
      WHEN name = '$contains' THEN greatest(jsonb_array_length(operand), 1)
      WHEN jsonb_typeof(operand) = 'array' THEN jsonb_array_length(operand)
      ELSE 1
    END;
    IF conditions > 1000 THEN
      RAISE EXCEPTION 'the filter has over 1,000 conditions' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF signs ? name THEN
      comparisons := comparisons || jsonb_build_object(signs ->> name, jsonb_build_array(operand));
      CONTINUE;
    END IF;
    CASE name
      WHEN '$eq', '$in' THEN
        part := searchapp_data.filter_among(field, paths, operand, type);
      WHEN '$ne', '$nin' THEN
        part := 'NOT ' || searchapp_data.filter_among(field, paths, operand, NULL);
      WHEN '$contains' THEN
        part := searchapp_data.filter_contains(paths, operand);
      WHEN '$exists' THEN
        part := CASE WHEN operand = 'false' THEN 'NOT ' ELSE '' END || searchapp_data.filter_path(paths);
      WHEN '$not' THEN
        inner_part := searchapp_data.filter_operators(field, operand, declared, true, conditions);
        conditions := inner_part.conditions;
        part := format('NOT (%s)', inner_part.condition);
      ELSE
        RAISE EXCEPTION 'unknown operator % in the filter; there are: $eq, $ne, $lt, $lte, $gt, $gte, $in, $nin,'
          ' $contains, $exists, $not', searchapp_data.quoted(name)
          USING ERRCODE = 'invalid_parameter_value';
    END CASE;
    condition := concat_ws(' AND ', condition, part);
  END LOOP;
  IF comparisons <> '{}' THEN  -- all at once: taken for independent of each other, they would be misjudged
    condition := concat_ws(
      ' AND ', condition, searchapp_data.filter_comparison(field, paths, comparisons, type));
  END IF;
END $$;
COMMENT ON FUNCTION searchapp_data.filter_operators(text, jsonb, jsonb, boolean, int) IS
  'The condition that a field meets all operators. Arguments: its name, the operators and their operands, the declared'
  ' fields, whether the whole stands under a negation, and how many conditions stand before.';

CREATE FUNCTION searchapp_data.filter_conjunction(
  filter jsonb, declared jsonb, negated boolean, INOUT conditions int, OUT condition text)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  name text;
  value jsonb;
  one jsonb;
  inner_part record;
  part text;
  parts text;
BEGIN
  IF jsonb_typeof(filter) <> 'object' THEN
    RAISE EXCEPTION 'a filter is %; expected an object such as {"lang": "en"}', searchapp_data.shown(filter)
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  FOR name, value IN SELECT * FROM jsonb_each(filter) LOOP
    IF name IN ('$and', '$or') THEN
      IF jsonb_typeof(value) <> 'array' OR value = '[]' THEN
        RAISE EXCEPTION '% needs a list of filters that is not empty, got %', name, searchapp_data.shown(value)
          USING ERRCODE = 'invalid_parameter_value';
      END IF;
      parts := NULL;
      FOR one IN SELECT * FROM jsonb_array_elements(value) LOOP
        inner_part := searchapp_data.filter_conjunction(one, declared, negated, conditions);
        conditions := inner_part.conditions;
        parts := concat_ws(
          CASE name WHEN '$or' THEN ' OR ' ELSE ' AND ' END, parts, format('(%s)', inner_part.condition));
      END LOOP;
      part := format('(%s)', parts);
    ELSIF name = '$not' THEN
      inner_part := searchapp_data.filter_conjunction(value, declared, true, conditions);
      conditions := inner_part.conditions;
      part := format('NOT (%s)', inner_part.condition);
    ELSIF starts_with(name, '$') THEN
      RAISE EXCEPTION 'unknown operator % in the filter; there are: $and, $or, $not', searchapp_data.quoted(name)
        USING ERRCODE = 'invalid_parameter_value';
    ELSE
      IF (value @? 'strict $.keyvalue() ? (@.key starts with "$")') IS NOT TRUE THEN
        value := jsonb_build_object('$eq', value);
      END IF;
      inner_part := searchapp_data.filter_operators(name, value, declared, negated, conditions);
      conditions := inner_part.conditions;
      part := inner_part.condition;
    END IF;
    condition := concat_ws(' AND ', condition, part);
  END LOOP;
  condition := coalesce(condition, 'true');
END $$;
COMMENT ON FUNCTION searchapp_data.filter_conjunction(jsonb, jsonb, boolean, int) IS
  'The condition that a filter, or one in another, means. Arguments: the filter, the declared fields, whether it stands'
  ' under a negation, and how many conditions stand before it.';

CREATE FUNCTION searchapp_data.filter_condition(filter jsonb, declared jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF filter IS NULL OR filter = '{}' THEN
    RETURN NULL;
  ELSIF filter @? 'strict $.**{41}' THEN
    RAISE EXCEPTION 'the filter is nested deeper than 40 levels' USING ERRCODE = 'invalid_parameter_value';
  ELSIF filter @? 'strict $.** ? (@ >= 1e1000 || @ <= -1e1000)' THEN
    RAISE EXCEPTION 'a filter''s number has over 1,000 digits' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  RETURN (SELECT c.condition FROM searchapp_data.filter_conjunction(filter, declared, false, 0) AS c);
END $$;
COMMENT ON FUNCTION searchapp_data.filter_condition(jsonb, jsonb) IS
  'The SQL text of the condition that a filter means for d, a row of searchapp_data.documents; NULL where it keeps all.'
  ' To be run with pg_catalog first in the search path. Arguments: the filter, and the declared fields of the'
  ' collection, the type by the name (settings -> ''fields'').';
