-- Searches from SQL with each step asked once, and the words in one statement less: in place of 0006's functions of the
-- same names, which a downgrade leaves so. What they are for their comments there say.

CREATE OR REPLACE FUNCTION searchapp_data.best_by_words(
  space searchapp_data.active_spaces, weighed searchapp_data.weighed_word[], count int,
  condition searchapp_data.condition, near uuid[] DEFAULT '{}'
) RETURNS searchapp_data.scored_document[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fits CONSTANT text := searchapp_data.fits(condition);
  part CONSTANT text := 'round(w.weight * p.frequency / (p.frequency + 0.3::float8 + w.slope * p.document_length))';
  postings CONSTANT text := format(
    'JOIN searchapp_data.postings p ON p.collection_id = %s AND p.term = w.term', space.collection_id);
  fitting CONSTANT text := CASE WHEN fits IS NULL THEN '' ELSE format(
    'JOIN searchapp_data.documents d ON d.id = s.document_id AND d.collection_id = %s WHERE %s',
    space.collection_id, fits) END;
  -- what some of the words give each document that fits
  scores CONSTANT text := format('
    SELECT s.document_id, s.score FROM (
      SELECT p.document_id, sum(%s) AS score FROM unnest($1) w %s GROUP BY p.document_id
    ) s %s', part, postings, fitting);
  as_documents CONSTANT text := 'array_agg(ROW(s.document_id, s.score / 4294967296)::searchapp_data.scored_document)';
  rarest CONSTANT searchapp_data.weighed_word[] := ARRAY(
    SELECT w FROM unnest(weighed) w WHERE w.before < greatest(count, 20) AND w.rest > w.weight);
  enough float8;
  others searchapp_data.weighed_word[];
  frequent searchapp_data.weighed_word[];
  of_frequent float8;
  best searchapp_data.scored_document[];
BEGIN
  -- rare words are read first; what they give the best shows which are so frequent that they alone make none of these
  IF rarest <> '{}' THEN
    EXECUTE format('SELECT s.score FROM (%s) s ORDER BY s.score DESC OFFSET %s LIMIT 1', scores, count - 1)
      INTO enough USING rarest, condition.required, condition.excluded;
  END IF;
  enough := coalesce(enough, 0);
  SELECT array_agg(w) FILTER (WHERE w.rest >= enough), array_agg(w) FILTER (WHERE w.rest < enough),
    max(w.rest) FILTER (WHERE w.rest < enough) INTO others, frequent, of_frequent
  FROM unnest(weighed) w;
  IF frequent IS NULL THEN
    EXECUTE format('SELECT %s FROM (%s) s', as_documents, scores)
      INTO best USING others, condition.required, condition.excluded;
  ELSE  -- of what the other words find, only what the frequent ones may still make one of the best
    EXECUTE format('
      WITH begun AS MATERIALIZED (%s),
      promising AS MATERIALIZED (
        SELECT * FROM begun b
        WHERE b.score >= greatest($4, (SELECT score FROM begun ORDER BY score DESC OFFSET %s LIMIT 1)) - $5
          OR b.document_id = ANY ($6)
      )
      SELECT %s FROM (
        SELECT document_id, sum(score) AS score FROM (
          SELECT * FROM promising
          UNION ALL
          SELECT p.document_id, %s FROM unnest($7) w %s
          WHERE p.document_id = ANY (ARRAY(SELECT document_id FROM promising UNION SELECT unnest($6)))
        ) AS parts GROUP BY document_id
      ) s', scores, count - 1, as_documents, part, postings) INTO best
      USING others, condition.required, condition.excluded, enough, of_frequent, near, frequent;
  END IF;
  RETURN coalesce(best, '{}');
END $$;

CREATE OR REPLACE FUNCTION searchapp.search(
  query text, collection text, "limit" int DEFAULT 10, filter jsonb DEFAULT NULL, mode text DEFAULT NULL
)
RETURNS SETOF searchapp_data.hit
LANGUAGE plpgsql STABLE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  space CONSTANT searchapp_data.active_spaces := searchapp_data.find_space(collection);
  way CONSTANT text := coalesce(mode,
    CASE WHEN space.language IS NOT NULL AND space.words_complete THEN 'hybrid' ELSE 'vector' END);
  candidates CONSTANT int := greatest(100, "limit");
  condition searchapp_data.condition := searchapp_data.condition_of(filter, space);
  read record;
  weighed searchapp_data.weighed_word[];
  scored searchapp_data.scored_document[];
  vector public.vector;
  near searchapp_data.near_document[];
BEGIN
  -- Each step's result goes into a variable before it is unnested: to see how many rows an unnest() of a stable function
  -- gives, the planner would call the function once more.
  PERFORM searchapp_data.check_limit("limit"), searchapp_data.check_query(query, way, space);
  IF way = 'vector' THEN
    RETURN QUERY SELECT * FROM searchapp_data.as_hits(space, (
      searchapp_data.nearest(space, searchapp.embed(query, collection), "limit", condition)).documents, "limit");
    RETURN;
  END IF;
  read := searchapp_data.read_query(query);
  IF read.phrases IS NOT NULL THEN
    condition.required := searchapp_data.having_phrases(space, read.phrases, true);
  END IF;
  IF read.excluded IS NOT NULL THEN
    condition.excluded := searchapp_data.having_phrases(space, read.excluded, false);
  END IF;
  weighed := searchapp_data.weigh(space, read.words);
  IF way = 'text' THEN
    scored := searchapp_data.best_by_words(space, weighed, "limit", condition);
    scored := ARRAY(SELECT s FROM unnest(scored) s ORDER BY s.score DESC, s.document_id LIMIT "limit");
    RETURN QUERY SELECT * FROM searchapp_data.shown_by_words(space, scored, weighed);
    RETURN;
  END IF;
  vector := searchapp.embed(read.words, collection);
  near := (searchapp_data.nearest(space, vector, candidates, condition)).documents;
  near := ARRAY(SELECT n FROM unnest(near) n ORDER BY n.distance, n.document_id LIMIT candidates);
  scored := searchapp_data.best_by_words(
    space, weighed, candidates, condition, ARRAY(SELECT n.document_id FROM unnest(near) n));
  RETURN QUERY SELECT * FROM searchapp_data.fused(space, vector, near, scored, candidates, "limit");
END $$;
