-- Search by words: BM25 of postings, as searchapp/search/lexical.py computes it.

CREATE TYPE searchapp_data.weighed_word AS (term text, weight float8, slope float8, before float8, rest float8);

COMMENT ON TYPE searchapp_data.weighed_word IS
'A word, the most that it gives a document, how that falls with the document''s length, how many postings the rarer ones
have, and the most that it and the more frequent ones give together.';

CREATE TYPE searchapp_data.scored_document AS (document_id uuid, score float8);

COMMENT ON TYPE searchapp_data.scored_document IS 'A document and its BM25 for some words.';

CREATE FUNCTION searchapp_data.read_query(
  typed text, OUT words text, OUT phrases text[], OUT excluded text[]
) LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- a mark begins a word: 12" and state-of-the-art have none
  marked CONSTANT text := '(?<!\S)(-?)(?:"([^"]*)"|“([^“”]*)”)|(?<!\S)-([^\s"“-]\S*)';
  pieces CONSTANT text[] := regexp_split_to_array(typed, marked);
  mark text[];
  phrase text;
  place int := 1;
BEGIN
  words := pieces[1];
  FOR mark IN SELECT * FROM regexp_matches(typed, marked, 'g') LOOP
    place := place + 1;
    phrase := btrim(coalesce(mark[4], mark[2], mark[3]), E' \t\n\r\f\v');
    IF mark[4] IS NOT NULL OR mark[1] = '-' THEN
      excluded := excluded || phrase;
      words := words || ' ' || pieces[place];
    ELSE
      phrases := phrases || phrase;
      words := words || phrase || ' ' || pieces[place];
    END IF;
  END LOOP;
  IF place > 1 THEN
    words := btrim(regexp_replace(words, '\s+', ' ', 'g'));
  END IF;
  IF words = '' THEN
    RAISE 'the query has nothing to look for; add words beside those that are excluded'
      USING ERRCODE = 'invalid_parameter_value';
  ELSIF place > 101 THEN
    RAISE 'the query has % phrases and exclusions; at most 100 can be asked', place - 1
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  phrases := nullif(array_remove(phrases, ''), '{}');
  excluded := nullif(array_remove(excluded, ''), '{}');
END $$;

COMMENT ON FUNCTION searchapp_data.read_query(text) IS
'Reads a question: a hit must have each "phrase" and no -excluded word or -"phrase"; words are what is left, with the
phrases; null where there are none.';

CREATE FUNCTION searchapp_data.having_phrases(space searchapp_data.active_spaces, phrases text[], "all" boolean)
RETURNS uuid[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  documents uuid[];
BEGIN
  EXECUTE format('
    WITH asked AS (
      SELECT p.phrase, p.place, tsvector_to_array(to_tsvector(%2$L::regconfig, p.phrase)) AS lexemes
      FROM unnest($1) WITH ORDINALITY AS p (phrase, place)
    ),
    candidates AS (
      SELECT p.document_id, a.place, a.phrase
      FROM asked a
      JOIN searchapp_data.postings p ON p.collection_id = %1$s AND p.term = ANY (a.lexemes)
      GROUP BY p.document_id, a.place, a.phrase, a.lexemes
      HAVING count(*) = cardinality(a.lexemes)
    )
    SELECT array_agg(id) FROM (
      SELECT d.id
      FROM candidates c
      JOIN searchapp_data.documents d ON d.id = c.document_id AND d.collection_id = %1$s
      WHERE c.phrase ~ ''^[[:alnum:]]+$''
        OR searchapp_data.has_phrase(%2$L::regconfig, concat_ws('' '', d.title, d.text), c.phrase)
      GROUP BY d.id
      HAVING NOT $2 OR count(*) = cardinality($1)
    ) AS those', space.collection_id, space.language) INTO documents USING phrases, "all";
  RETURN coalesce(documents, '{}');
END $$;

COMMENT ON FUNCTION searchapp_data.having_phrases(searchapp_data.active_spaces, text[], boolean) IS
'The documents that have all of the phrases, or some of them.';

CREATE FUNCTION searchapp_data.weigh(space searchapp_data.active_spaces, words text)
RETURNS searchapp_data.weighed_word[] LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  lexemes CONSTANT text[] := tsvector_to_array(to_tsvector(space.language::regconfig, words));
BEGIN
  RETURN ARRAY(
    SELECT ROW(
      w.term, w.weight, w.slope,
      sum(w.documents) OVER (ORDER BY w.weight DESC, w.term COLLATE "C") - w.documents,
      sum(w.weight) OVER (ORDER BY w.weight, w.term COLLATE "C" DESC)
    )::searchapp_data.weighed_word
    FROM (
      SELECT l.term, 0.8999999999999999::float8 / k.mean_length AS slope, t.documents,
        round(ln(1 + (greatest(k.documents, t.documents) - t.documents + 0.5::float8) / (t.documents + 0.5::float8))
          * 9448928051.2::float8) AS weight
      FROM (
        SELECT c.documents, greatest(c.mean_length, 1) AS mean_length
        FROM searchapp_data.collections c WHERE c.id = space.collection_id
      ) k
      CROSS JOIN unnest(lexemes) AS l (term)
      CROSS JOIN LATERAL (
        SELECT sum(c.documents)::float8 AS documents FROM searchapp_data.term_counts c
        WHERE c.collection_id = space.collection_id AND c.term = l.term
      ) t
      WHERE t.documents > 0
    ) w
  );
END $$;

COMMENT ON FUNCTION searchapp_data.weigh(searchapp_data.active_spaces, text) IS
'The words of a text that some document has, each once. k1 is 1.2, b 0.75; weights are whole numbers, of which 2^32 are
a BM25 of 1.';

CREATE FUNCTION searchapp_data.best_by_words(
  space searchapp_data.active_spaces, weighed searchapp_data.weighed_word[], count int,
  condition searchapp_data.condition, near uuid[] DEFAULT '{}'
) RETURNS searchapp_data.scored_document[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fits CONSTANT text := searchapp_data.fits(condition);
  part CONSTANT text := 'round(w.weight * p.frequency / (p.frequency + 0.3::float8 + w.slope * p.document_length))';
  of_words CONSTANT text := format(
    'FROM unnest($1) w JOIN searchapp_data.postings p ON p.collection_id = %s AND p.term = w.term',
    space.collection_id);
  fitting CONSTANT text := CASE WHEN fits IS NULL THEN '' ELSE format(
    'JOIN searchapp_data.documents d ON d.id = s.document_id AND d.collection_id = %s WHERE %s',
    space.collection_id, fits) END;
  -- what some of the words give each document that fits
  scores CONSTANT text := format(
    'SELECT s.document_id, s.score FROM (SELECT p.document_id, sum(%s) AS score %s GROUP BY p.document_id) s %s',
    part, of_words, fitting);
  rarest CONSTANT searchapp_data.weighed_word[] := ARRAY(
    SELECT w FROM unnest(weighed) w WHERE w.before < greatest(count, 20) AND w.rest > w.weight);
  enough float8;
  frequent searchapp_data.weighed_word[];
  others searchapp_data.weighed_word[];
  best searchapp_data.scored_document[];
BEGIN
  -- rare words are read first; what they give the best shows which are so frequent that they alone make none of these
  IF rarest <> '{}' THEN
    EXECUTE format('SELECT s.score FROM (%s) s ORDER BY s.score DESC OFFSET %s LIMIT 1', scores, count - 1)
      INTO enough USING rarest, condition.required, condition.excluded;
  END IF;
  enough := coalesce(enough, 0);
  others := ARRAY(SELECT w FROM unnest(weighed) w WHERE w.rest >= enough);
  frequent := ARRAY(SELECT w FROM unnest(weighed) w WHERE w.rest < enough);
  -- all that the other words find, or those that the frequent ones may still make one of the best
  EXECUTE CASE WHEN frequent = '{}' THEN format(
    'SELECT array_agg(ROW(s.*)::searchapp_data.scored_document) FROM (%s) s', scores)
  ELSE format('
    WITH begun AS MATERIALIZED (%s)
    SELECT array_agg(ROW(b.*)::searchapp_data.scored_document) FROM begun b
    WHERE b.score >= greatest($4, (SELECT score FROM begun ORDER BY score DESC OFFSET %s LIMIT 1)) - $5
      OR b.document_id = ANY ($6)', scores, count - 1)
  END INTO best USING others, condition.required, condition.excluded, enough,
    (SELECT max(w.rest) FROM unnest(frequent) w), near;
  IF frequent <> '{}' THEN
    EXECUTE format('
      SELECT array_agg(ROW(s.*)::searchapp_data.scored_document) FROM (
        SELECT document_id, sum(score) AS score FROM (
          SELECT * FROM unnest($2)
          UNION ALL
          SELECT p.document_id, %s %s WHERE p.document_id = ANY ($3)
        ) AS parts GROUP BY document_id
      ) s', part, of_words) INTO best
      USING frequent, best, ARRAY(SELECT b.document_id FROM unnest(best) b UNION SELECT unnest(near));
  END IF;
  RETURN ARRAY(SELECT ROW(b.document_id, b.score / 4294967296)::searchapp_data.scored_document FROM unnest(best) b);
END $$;

COMMENT ON FUNCTION searchapp_data.best_by_words(
  searchapp_data.active_spaces, searchapp_data.weighed_word[], int, searchapp_data.condition, uuid[]) IS
'Documents among which are the count best by BM25 of those that fit, with their scores, and those of the ones that are
near, which must fit, where they have some of the words.';

CREATE FUNCTION searchapp_data.score_of_piece(piece text, language regconfig, weighed searchapp_data.weighed_word[])
RETURNS float8 LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (
    SELECT sum(w.weight * cardinality(l.positions) / (cardinality(l.positions) + 1.2::float8))
    FROM unnest(to_tsvector(language, piece)) l
    JOIN unnest(weighed) w ON w.term = l.lexeme
  );
END $$;

COMMENT ON FUNCTION searchapp_data.score_of_piece(text, regconfig, searchapp_data.weighed_word[]) IS
'How much of some words a piece of a text has; null where it has none.';
